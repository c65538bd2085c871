"""Entries of an outbox: what a decision has to send, as typed values."""

from typing import Any, Literal, NamedTuple

from mageflow._frozen import frozen
from mageflow.errors import SignatureInvalidError
from mageflow.signatures import LifecycleAction, Status
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import FlowAction, MemberPath, ParentReport, RunCancellation, parse_outbox_field

__all__ = [
    "Acknowledgement",
    "ActionEntry",
    "CancelEntry",
    "MemberEntry",
    "OutboxEntry",
    "ReportEntry",
    "read_entry",
    "read_path",
]

Role = Literal["step", "item", "success", "error", "rerun"]
"""Why a member is sent: as a step, an item or a callback, or because a user's run of it has to be sent again."""


class Acknowledgement(NamedTuple):
    """One entry of an outbox that was sent."""

    field: str
    """Name of the entry, see `mageflow.store.paths`."""
    epoch: int
    run_id: str
    """The run it led to; empty when it led to none."""


@frozen(kw_only=True)
class _AnyEntry:
    """The fields of every entry of an outbox.

    Attributes:
        field: Its name in the outbox.
        epoch: Which dispatch of the member this is, from 0.
        tries: How often a reconciler had to send it again.
    """

    field: str
    epoch: int
    tries: int = 0

    def sent_as(self, run_id: str = "") -> Acknowledgement:
        """The acknowledgement that this entry was sent."""
        return Acknowledgement(self.field, self.epoch, run_id)


@frozen(kw_only=True)
class MemberEntry(_AnyEntry):
    """Start a member: a run of a task, or a nested flow.

    Attributes:
        path: The member.
        starts: What is started: a run of a task, or a nested flow.
        definition_json: Its definition.
        role: Why it is started.
        value_json: The previous result, or the error; empty when there is none.
        input_json: For an error callback the input that failed; for a rerun the input of the run.
        link: Traceparent of the run that led to this one.
        options_json: What the run is given (`mageflow.signatures.RunOptions`); empty when there is nothing.
        failed_input_json: For an error callback of a flow the input of the step or item whose failure ended it.
        handed_ms: When what came before it ended: epoch milliseconds by the clock of Redis; None where nothing did.
    """

    path: MemberPath
    starts: Literal["run", "flow"]
    definition_json: str
    role: Role
    value_json: str
    input_json: str
    link: str
    options_json: str = ""
    failed_input_json: str = ""
    handed_ms: int | None = None


@frozen(kw_only=True)
class ReportEntry(_AnyEntry):
    """Report the end of this flow to its parent flow.

    Attributes:
        parent: Key of the parent's member that this flow stands for.
        status: What the flow ended as.
        value_json: Its result, or its error; empty when there is none.
        link: Traceparent of the run that ended it.
        failed_input_json: The input that failed; empty when none did.
    """

    parent: str
    status: Status
    value_json: str
    link: str
    failed_input_json: str = ""


@frozen(kw_only=True)
class CancelEntry(_AnyEntry):
    """Cancel a run in Hatchet."""

    run_id: str


@frozen(kw_only=True)
class ActionEntry(_AnyEntry):
    """Apply a lifecycle action to a nested flow."""

    action: LifecycleAction
    flow_key: str


OutboxEntry = MemberEntry | ReportEntry | CancelEntry | ActionEntry


def read_entry(keys: RecordKeys, row: list[Any]) -> OutboxEntry:
    """Read one row of the envelope of ``lib_flow.lua``.

    Raises:
        SignatureInvalidError: The row names no entry.
    """
    field, kind, epoch, definition, role, value, extra, link, tries, options, failed_input, handed_ms = row
    try:
        target = parse_outbox_field(field)
    except ValueError as error:
        raise SignatureInvalidError(keys.record, str(error)) from None
    match target:
        case MemberPath():
            return MemberEntry(
                field=field,
                epoch=int(epoch),
                tries=int(tries),
                path=target,
                starts=kind,
                definition_json=definition,
                role=role,
                value_json=value,
                input_json=extra,
                link=link,
                options_json=options,
                failed_input_json=failed_input,
                handed_ms=int(handed_ms) if handed_ms else None,
            )
        case ParentReport():
            return ReportEntry(
                field=field,
                epoch=int(epoch),
                tries=int(tries),
                parent=extra,
                status=Status(role),
                value_json=value,
                link=link,
                failed_input_json=failed_input,
            )
        case RunCancellation():
            return CancelEntry(field=field, epoch=int(epoch), tries=int(tries), run_id=target.run_id)
        case FlowAction():
            return ActionEntry(
                field=field, epoch=int(epoch), tries=int(tries), action=target.action, flow_key=target.flow_key
            )


def read_path(keys: RecordKeys, text: str) -> MemberPath:
    """Read a path that is stored in a record.

    Raises:
        SignatureInvalidError: It is damaged.
    """
    try:
        return MemberPath.parse(text)
    except ValueError as error:
        raise SignatureInvalidError(keys.record, str(error)) from None
