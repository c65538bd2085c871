"""Operations that a run makes: `admit` before its body, `settle` after it. A plain run makes none."""

import functools
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple

from mageflow.errors import SignatureInvalidError, SignatureNotFoundError
from mageflow.interceptors import SignatureLoad, SignatureWrite
from mageflow.signatures import RunIdentity
from mageflow.store.keys import RecordKeys, signature_id_of
from mageflow.store.paths import MemberPath
from mageflow.store.records import declarations as scripts
from mageflow.store.records.admission import Admission, AdmissionRequest, locate
from mageflow.store.records.calls import RecordOperations
from mageflow.store.records.decisions import Settlement, SettleVerdict
from mageflow.store.records.entries import Acknowledgement
from mageflow.store.records.outcome import AttemptOutcome
from mageflow.store.records.stored import StoredHeader
from mageflow.store.records.views import check_member, guarded, member_view
from mageflow.types import SignatureKind

__all__ = ["RunOperations"]


class RunOperations(RecordOperations):
    """Admits and settles runs."""

    async def admit(self, request: AdmissionRequest, *, is_replayed: bool = False) -> Admission:
        """Decide whether a run may execute its task function, and mark the signature active if so.

        Atomic, and safe to repeat with the same run, attempt and worker when an answer was lost. The rules, in order:

        - The key was written for another run, has another prefix, namespace or shape than keys of this client, or the
          member is of another task than the run: ``foreign``; the run is a plain one.
        - The member succeeded: the same run gets the stored result (``replay``), another run is skipped.
        - A later attempt of the run that failed or was cancelled: ``ended``; with ``is_replayed`` it is admitted. Every
          other run of an ended member is skipped, and every run of an interrupted one.
        - A run of an earlier dispatch (before suspend and resume), or an earlier attempt: skipped as ``superseded``.
        - A second run of the same dispatch: skipped as ``duplicate``; the first to arrive owns the member.
        - The owner's next attempt, or the same attempt on another worker after reassignment: admitted.
        - Suspended: skipped, and held with its input until resume.
        - A further task of a workflow whose run owns the member: admitted, also while suspended. After the end it is
          ``over``, except after a failure: then a user has replayed the run, and the member is active again.

        Each run that a user starts from a plain signature is a member of its own and may run beside the others. A step,
        an item or a callback is one member, however many runs it has.

        Args:
            request: The run, and what it brings with it.
            is_replayed: True if Hatchet reports that a user replayed the run.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        key, run = request.key, request.run
        try:
            keys = self.keys.parse(key)
        except SignatureNotFoundError:
            # Nothing of this client has such a key: the metadata is of another program, or no key at all.
            return self.foreign(key)
        path, epoch = locate(keys, run)
        is_of_user, workflow = path.nonce is not None, request.workflow
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            reply: list[Any] = await self._call(
                scripts.ADMIT,
                keys,
                str(path),
                "" if epoch is None else epoch,
                run.workflow_run_id,
                run.task_run_id,
                run.worker_id,
                run.attempt_number if not workflow else 1,
                request.input_json if is_of_user else "",
                run.traceparent,
                "1" if is_replayed else "",
                request.options_json if is_of_user else "",
                _comparable(request.task_names, self.keys.namespace),
                workflow,
                "1" if request.wants_signature else "",
            )
            verdict, status, *_ = reply
            if verdict == "missing":
                call.result = "missing"
                raise SignatureNotFoundError(key)
            if verdict == "invalid":
                call.result = "invalid"
                raise SignatureInvalidError(key, status)
            return _admission(keys, path, reply, call, wants_signature=request.wants_signature)

    def foreign(self, key: str) -> Admission:
        """Admit a run as a plain one, because its key was written for another run. No round trip.

        Args:
            key: ``mageflow_signature`` of the run's metadata.
        """
        kind: SignatureKind = "task"
        with suppress(SignatureNotFoundError):
            kind = self.keys.parse(key).kind
        with self._interceptor.load_signature(SignatureLoad(kind, signature_id_of(key), result="foreign")):
            return Admission("foreign")

    async def settle(
        self, key: str, run: RunIdentity, ended: AttemptOutcome, *, acknowledged: Sequence[Acknowledgement] = ()
    ) -> Settlement:
        """Record how an attempt ended, and decide what follows from it. One round trip, atomic, safe to repeat.

        Args:
            key: ``mageflow_signature`` of the run's metadata.
            run: The run and the attempt; `RunIdentity.traceparent` is what the next step links to.
            ended: How the attempt ended.
            acknowledged: Sent entries of this record, as for `acknowledge`; saves its round trip.

        Raises:
            SignatureNotFoundError: The key is none of this client's.
        """
        keys = self.keys.parse(key)
        path, _ = locate(keys, run)
        without_result = "null" if ended.outcome == "succeeded" else ""
        call = SignatureWrite(keys.kind, "update", keys.id)
        with self._interceptor.write_signature(call):
            reply = await self._call(
                scripts.SETTLE,
                keys,
                str(path),
                run.workflow_run_id,
                0 if ended.reported_by_engine else run.attempt_number,
                ended.outcome,
                max(1, ended.max_failures) if ended.will_retry else 0,
                without_result if ended.result_json is None else ended.result_json,
                ended.error.model_dump_json() if ended.error else "",
                ended.input_json,
                run.traceparent,
                _stages_json(ended.stages_ms),
                *[part for each in acknowledged for part in each],
            )
            call.is_dropped = reply[0] == SettleVerdict.GONE and ended.outcome != "cancelled"
        return guarded(keys.record, lambda: Settlement.parse(keys, reply))


@functools.lru_cache(maxsize=256)
def _comparable(task_names: tuple[str, ...], namespace: str) -> str:
    """The names with and without the namespace, as ``admit.lua`` compares them: in lower case, as in Hatchet."""
    if not task_names:
        return ""
    names = {form for each in task_names for form in (each, each.removeprefix(namespace), f"{namespace}{each}")}
    return "\n" + "\n".join(sorted(name.translate(_LOWER) for name in names)) + "\n"


_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class _MemberReply(NamedTuple):
    """What ``admit.lua`` answers after the verdict and the status, where the run may execute."""

    header: list[str]
    definition: str
    successes: int
    errors: int
    state: str
    handover_ms: int
    failed_attempts: int


def _stages_json(stages_ms: Mapping[str, int]) -> str:
    """JSON of the times, empty without one. Names of stages are plain words, so no encoder has to look at them."""
    return "{" + ",".join([f'"{stage}":{ms}' for stage, ms in stages_ms.items()]) + "}" if stages_ms else ""


def _without_body(verdict: Literal["skip", "over", "ended"], status: str, more: Any = "") -> Admission:
    if verdict == "ended":
        return Admission(verdict, status=status, ended_attempt=int(more))
    return Admission(verdict, status=status, owner_run_id=more)


def _admission(
    keys: RecordKeys, path: MemberPath, reply: list[Any], call: SignatureLoad, *, wants_signature: bool
) -> Admission:
    """Read the answer of ``admit.lua``, and note in the call what was found."""
    verdict, status, *rest = reply
    if verdict == "foreign":
        call.result = "foreign"
        return Admission("foreign")
    call.result = "hit"
    if verdict == "replay":
        return Admission("replay", status="done", result_json=status)
    if verdict in ("skip", "over", "ended"):
        return _without_body(verdict, status, *rest)
    member = _MemberReply(*rest)
    call.result, call.size_bytes = "invalid", len(member.definition)
    header = StoredHeader.read(member.header)
    signature = None
    if wants_signature:
        signature = member_view(keys, path, header, member.definition, member.successes, member.errors, member.state)
    else:
        check_member(keys, path, member.definition)
    call.result = "hit"
    step = path.index if path.is_step_or_item else None
    return Admission(
        "run",
        status=status,
        signature=signature,
        flow_kind=keys.kind if keys.kind != "task" and step is not None else "",
        flow_id=keys.id if keys.kind != "task" else "",
        flow_name=header.name,
        step=step or 0,
        steps=header.total,
        handover_seconds=member.handover_ms / 1000 if member.handover_ms >= 0 else None,
        failed_attempts=member.failed_attempts,
        traceparent=header.traceparent,
        goes_on=verdict == "go_on",
    )
