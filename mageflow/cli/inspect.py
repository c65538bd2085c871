"""``mageflow inspect``: one signature, chain or swarm as it is stored now, for a person or a program.

It owns the drawing and the JSON. It refuses to change anything: looking refreshes no TTL and starts nothing.
"""

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mageflow.cli.state import hatchet_namespace, open_console, open_redis, state_options
from mageflow.errors import ConfigurationError, SignatureNotFoundError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mageflow.signatures import FailureRecord, LastRun
    from mageflow.store import Description, MemberDescription

__all__ = ["inspect"]

_STYLES = {
    "pending": "dim",
    "active": "bold cyan",
    "suspended": "yellow",
    "done": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "interrupted": "magenta",
}
_TRACEPARENT_FIELDS = 4

_EPILOG = """\b
Examples:
  mageflow inspect 'mageflow:{prod_/a}:chain:4f1c…a'      a key, as client.chain(...).key prints it
  mageflow inspect 4f1c…a --namespace prod                the id logs and spans carry as flow_id or signature_id
  mageflow inspect 'mageflow:{prod_/a}:chain:4f1c…a#2'    one step, with its callbacks
  mageflow inspect KEY --first 100 --limit 20             items 100 to 119 of a swarm
  mageflow inspect KEY --json | jq '.members[] | select(.status == "failed")'

\b
Quote a key: it has braces. Values bound to tasks are shown only with --values.
Exit status: 0 found, 1 not found or Redis did not answer, 2 asked for wrongly.
"""


@click.command(epilog=_EPILOG)
@click.argument("key")
@state_options
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first step, item or run shown.")
@click.option(
    "--limit", type=click.IntRange(0, 1000), default=50, show_default=True, help="How many of them are shown."
)
@click.option("--values", is_flag=True, help="Show bound values, which are the program's own data.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(
    key: str, redis_url: str | None, namespace: str | None, first: int, limit: int, *, values: bool, as_json: bool
) -> None:
    """Show a signature, a chain or a swarm as it is stored now.

    Status, steps or items with their callbacks, attempts, last errors, run and trace ids, history, and what keeps it
    where it is. KEY is a key, which names its own namespace, or an id. Nothing is changed by looking.
    """
    described = asyncio.run(_describe(key, redis_url, namespace, first, limit))
    if as_json:
        click.echo(json.dumps(_document(described, values=values), ensure_ascii=False))
        return
    _draw(open_console(), described, values=values)


async def _describe(key: str, redis_url: str | None, namespace: str | None, first: int, limit: int) -> "Description":
    from mageflow.config import Settings
    from mageflow.store import Keys, describe_record, find_records, split_member_key

    settings = Settings()
    wanted = hatchet_namespace(namespace)
    async with open_redis(redis_url, settings) as port:
        if ":" in key:
            keys = Keys.of(key)
            if _was_written("namespace") and keys.namespace != Keys("", wanted).namespace:
                raise ConfigurationError(
                    f"the key belongs to namespace {keys.namespace!r}, not {wanted!r}: leave --namespace out"
                )
            return await describe_record(port, keys, key, first=first, limit=limit)
        try:
            identity, path = split_member_key(key)
        except ValueError:
            raise SignatureNotFoundError(key) from None
        found = await find_records(port, settings, wanted, identity)
        if not found:
            raise SignatureNotFoundError(key)
        return await describe_record(port, Keys.of(found[0]), path.key(found[0]), first=first, limit=limit)


def _was_written(parameter: str) -> bool:
    """Whether the user wrote this option, rather than that its environment variable or default was taken."""
    from click.core import ParameterSource

    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE


# -- for programs ------------------------------------------------------------------------------------------------------


def _document(described: "Description", *, values: bool) -> dict[str, Any]:
    signature = described.signature
    document: dict[str, Any] = {
        "key": signature.key,
        "kind": described.kind,
        "name": described.name,
        "status": signature.status,
        "at": _iso(described.at),
        "created_at": _iso(signature.created_at),
        "updated_at": _iso(signature.updated_at),
        "started_at": _iso(described.started_at),
        "ended_at": _iso(described.ended_at),
        "expires_in_s": described.expires_in_seconds,
        "parent": described.parent,
        "attempts": signature.attempts,
        "run": _run(signature.last_run),
        "trace_id": _trace_id(signature.traceparent),
        "error": _error(signature.last_error),
        "history": [each.model_dump(mode="json") for each in signature.history],
        "delivery": {
            "unsent": described.unsent,
            "live": described.live,
            "held": described.held,
            "checked_in_s": described.checked_in_seconds,
        },
        "progress": _progress(described),
        "members": [
            {
                "path": str(each.path),
                "key": each.key,
                "role": each.role,
                "task": each.task,
                "flow": each.flow_key,
                "status": each.status,
                "stage": each.stage,
                "attempts": each.attempts,
                "changed_at": _iso(each.changed_at),
                "run": _run(each.last_run),
                "trace_id": _trace_id(each.traceparent),
                "error": _error(each.last_error),
                "result_bytes": each.result_bytes,
                **({"values": each.values} if values else {}),
            }
            for each in described.members
        ],
        "members_first": described.first,
        "members_total": described.members_total,
    }
    if values:
        document["values"] = signature.kwargs
    return document


def _progress(described: "Description") -> dict[str, Any]:
    signature = described.signature
    if signature.kind == "chain":
        return {"step": signature.step, "steps": len(signature.steps)}
    if signature.kind == "swarm":
        names = ("is_closed", "total", "pending", "running", "succeeded", "failed")
        return {**{name: getattr(signature, name) for name in names}, **signature.config.model_dump()}
    return {"task": signature.task_name, "identifiers": signature.task_identifiers, "flow": signature.flow_key}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _run(run: "LastRun | None") -> dict[str, Any] | None:
    return run.model_dump() if run is not None else None


def _error(error: "FailureRecord | None") -> dict[str, Any] | None:
    return error.model_dump(mode="json") if error is not None else None


def _trace_id(traceparent: str) -> str:
    fields = traceparent.split("-")
    return fields[1] if len(fields) == _TRACEPARENT_FIELDS else ""


# -- for people --------------------------------------------------------------------------------------------------------


def _draw(console: "Console", described: "Description", *, values: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    signature = described.signature
    title = Text.assemble((signature.kind, "bold"), " ", (_title(described), "bold"), "  ", _status(signature.status))
    console.print(title)
    console.print()
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(described, values=values):
        facts.add_row(name, value)
    console.print(facts)
    if described.members:
        console.print()
        console.print(_members(described, values=values))
        shown = sum(1 for each in described.members if not each.path.callbacks)
        if described.path.is_record and described.first + shown < described.members_total:
            left = described.members_total - described.first - shown
            console.print(Text(f"{left} more: --first {described.first + shown}, or a higher --limit", "dim"))
    if signature.history:
        console.print()
        console.print(_history(described))


def _title(described: "Description") -> str:
    signature = described.signature
    return signature.task_name if signature.kind == "task" else signature.name


def _facts(described: "Description", *, values: bool) -> Iterator[tuple[str, "str | Text"]]:
    from rich.text import Text

    signature, at = described.signature, described.at
    yield "key", signature.key
    yield from _place_and_progress(described)
    yield "created", _ago(signature.created_at, at)
    if described.started_at is not None and described.path.is_record:
        until = described.ended_at or at
        verb = "took" if described.ended_at else "running for"
        yield "started", f"{_ago(described.started_at, at)}, {verb} {_span(until - described.started_at)}"
    yield "updated", _ago(signature.updated_at, at)
    yield "attempts", str(signature.attempts)
    if signature.last_run is not None:
        yield "last run", signature.last_run.workflow_run_id
        if signature.last_run.worker_id:
            yield "worker", signature.last_run.worker_id
    if trace_id := _trace_id(signature.traceparent):
        yield "trace", trace_id
    if signature.last_error is not None:
        yield "last error", Text(_said(signature.last_error), "red")
    if values and signature.kwargs:
        yield "values", json.dumps(signature.kwargs, ensure_ascii=False)
    yield "delivery", _delivery(described)
    yield "forgotten", f"in {_span(timedelta(seconds=max(described.expires_in_seconds, 0)))} unless something happens"


def _place_and_progress(described: "Description") -> Iterator[tuple[str, str]]:
    signature = described.signature
    if described.parent:
        yield "part of", described.parent
    if signature.kind == "task" and signature.flow_key:
        yield "part of", signature.flow_key
    if signature.kind == "task" and signature.task_identifiers:
        yield "identifiers", json.dumps(signature.task_identifiers, ensure_ascii=False)
    if signature.kind == "chain":
        yield "progress", f"{signature.step} of {len(signature.steps)} steps succeeded"
    if signature.kind == "swarm":
        yield (
            "progress",
            (
                f"{signature.succeeded} succeeded, {signature.failed} failed, {signature.running} running, "
                f"{signature.pending} pending, of {signature.total}; {'closed' if signature.is_closed else 'open'}, "
                f"at most {signature.config.max_concurrency} at once"
            ),
        )


def _delivery(described: "Description") -> str:
    parts = [f"{described.live} with Hatchet or running", f"{described.unsent} to be sent", f"{described.held} held"]
    wait = described.checked_in_seconds
    if wait is not None:
        late = f"{_span(timedelta(seconds=-wait))} late" if wait < 0 else f"in {_span(timedelta(seconds=wait))}"
        parts.append(f"a reconciler looks {late}")
    return ", ".join(parts)


def _members(described: "Description", *, values: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column({"chain": "step", "swarm": "item"}.get(described.kind, "run"), no_wrap=True)
    for heading in ("task", "status", "attempts", "changed", "run", "error"):
        table.add_column(heading, justify="right" if heading == "attempts" else "left", overflow="fold")
    if values:
        table.add_column("values", overflow="fold")
    flow_trace = _trace_id(described.signature.traceparent)
    for each in described.members:
        ids = Text(each.last_run.workflow_run_id if each.last_run is not None else "")
        trace_id = _trace_id(each.traceparent)
        if trace_id and trace_id != flow_trace:
            ids.append(f"\ntrace {trace_id}", "dim")
        table.add_row(
            _place(each),
            each.task or Text(each.flow_key, "italic"),
            _status(each.status, "" if each.stage in ("", each.status) else each.stage),
            str(each.attempts) if each.stage else "",
            _span(described.at - each.changed_at) + " ago" if each.changed_at is not None else "",
            ids,
            Text(_said(each.last_error), "red") if each.last_error is not None else "",
            *([json.dumps(each.values, ensure_ascii=False) if each.values else ""] if values else []),
        )
    return table


def _place(member: "MemberDescription") -> "Text":
    from rich.text import Text

    depth = len(member.path.callbacks)
    if not depth:
        return Text(str(member.path))
    return Text(f"{'  ' * depth}{'on success' if member.role == 'success callback' else 'on error'}", "dim")


def _history(described: "Description") -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("history", "became", "by", "why"):
        table.add_column(heading, no_wrap=heading == "history", overflow="fold")
    for entry in described.signature.history:
        at = f"{entry.at:%Y-%m-%d %H:%M:%S}.{entry.at.microsecond // 1000:03d} UTC"
        table.add_row(at, _status(entry.status), entry.by, entry.why)
    return table


def _status(status: str, stage: str = "") -> "Text":
    from rich.text import Text

    text = Text(str(status), _STYLES.get(status, ""))
    return text.append(f" ({stage})", "dim") if stage else text


def _said(error: "FailureRecord") -> str:
    message = f": {error.message}" if error.message else ""
    return f"{error.type}{message} ({error.task or 'no task'}, attempt {error.attempt}, {error.outcome})"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {_span(now - moment)} ago"


def _span(length: timedelta) -> str:
    seconds = max(length.total_seconds(), 0.0)
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
