"""The tables of ``mageflow inspect``."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mageflow.cli.console import TABLE_WIDTH, data, print_folded, print_rows, span
from mageflow.cli.inspect.bars import draw_timeline, draw_waits
from mageflow.cli.inspect.document import trace_id
from mageflow.cli.inspect.timeline import Timeline
from mageflow.cli.inspect.waits import Wait
from mageflow.signatures import FailureRecord
from mageflow.store import Description, MemberDescription
from mageflow.terminal import printable

__all__ = ["draw"]

_STYLES = {
    "pending": "dim",
    "active": "bold cyan",
    "suspended": "yellow",
    "done": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "interrupted": "magenta",
}


def draw(
    console: Console, described: Description, timeline: Timeline | None, waits: Sequence[Wait], *, values: bool
) -> None:
    """Print the tables.

    Args:
        console: Where to print them.
        described: What is stored.
        timeline: When its members ran; None before the first.
        waits: What it waits for now.
        values: Whether to show the values bound to tasks.
    """
    signature = described.signature
    title = signature.task_name if signature.kind == "task" else signature.name
    console.print(Text.assemble((signature.kind, "bold"), " ", data(title, "bold"), "  ", _status(signature.status)))
    console.print()
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, value in _properties(described, values=values):
        if console.width < TABLE_WIDTH:
            print_folded(console, name, printable(value))
        else:
            rows.add_row(name, data(value, "red" if name == "last error" else ""))
    if rows.row_count:
        console.print(rows)
    if waits:
        console.print()
        draw_waits(console, waits)
    if timeline is not None:
        console.print()
        draw_timeline(console, timeline)
    if described.members:
        console.print()
        print_rows(console, _members(described, values=values))
        shown = sum(1 for each in described.members if not each.path.callbacks)
        if described.path.is_record and described.first + shown < described.members_total:
            left = described.members_total - described.first - shown
            console.print(Text(f"{left} more: --first {described.first + shown}, or a higher --limit", "dim"))
    if signature.history:
        console.print()
        print_rows(console, _history(described))


def _properties(described: Description, *, values: bool) -> Iterator[tuple[str, str]]:
    signature, at = described.signature, described.at
    yield "key", signature.key
    yield from _place_and_progress(described)
    yield "created", _ago(signature.created_at, at)
    if described.started_at is not None and described.path.is_record:
        until = described.ended_at or at
        verb = "took" if described.ended_at else "running for"
        length = span((until - described.started_at).total_seconds())
        yield "started", f"{_ago(described.started_at, at)}, {verb} {length}"
    yield "updated", _ago(signature.updated_at, at)
    yield "attempts", str(signature.attempts)
    if signature.last_run is not None:
        yield "last run", signature.last_run.workflow_run_id
        if signature.last_run.worker_id:
            yield "worker", signature.last_run.worker_id
    if trace := _trace_of(described):
        yield "trace", trace
    if signature.last_error is not None:
        yield "last error", _error(signature.last_error)
    if values and signature.kwargs:
        yield "values", json.dumps(signature.kwargs, ensure_ascii=False)
    yield "delivery", _delivery(described)
    yield "expires", f"in {span(described.expires_in_seconds)}, if nothing happens"


def _trace_of(described: Description) -> str:
    """The trace of the record, or the one that all its members share: a start outside of a span has none of its own."""
    shared = {trace_id(each.traceparent) for each in described.members} - {""}
    return trace_id(described.signature.traceparent) or (shared.pop() if len(shared) == 1 else "")


def _place_and_progress(described: Description) -> Iterator[tuple[str, str]]:
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


def _delivery(described: Description) -> str:
    parts = [f"{described.live} with Hatchet or running", f"{described.unsent} to be sent", f"{described.held} held"]
    wait = described.checked_in_seconds
    if wait is not None:
        parts.append(f"next check by a reconciler {f'{span(-wait)} late' if wait < 0 else f'in {span(wait)}'}")
    return ", ".join(parts)


def _members(described: Description, *, values: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column({"chain": "step", "swarm": "item"}.get(described.kind, "run"), no_wrap=True)
    for heading in ("task", "status", "attempts", "changed", "run", "error"):
        table.add_column(heading, justify="right" if heading == "attempts" else "left", overflow="fold")
    if values:
        table.add_column("values", overflow="fold")
    flow_trace = _trace_of(described)
    for each in described.members:
        run = data(each.last_run.workflow_run_id if each.last_run is not None else "")
        trace = trace_id(each.traceparent)
        if trace and trace != flow_trace:
            run.append("\n").append_text(data(f"trace {trace}", "dim"))
        changed = f"{span((described.at - each.changed_at).total_seconds())} ago" if each.changed_at else ""
        bound = [data(json.dumps(each.values, ensure_ascii=False) if each.values else "")] if values else []
        table.add_row(
            _place(each),
            data(each.task) if each.task else data(each.flow_key, "italic"),
            _status(each.status, "" if each.stage in ("", each.status) else each.stage),
            str(each.attempts) if each.stage else "",
            changed,
            run,
            data(_error(each.last_error), "red") if each.last_error is not None else "",
            *bound,
        )
    return table


def _place(member: MemberDescription) -> Text:
    depth = len(member.path.callbacks)
    if not depth:
        return data(member.path)
    return Text(f"{'  ' * depth}{'on success' if member.role == 'success callback' else 'on error'}", "dim")


def _history(described: Description) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("history", "became", "by", "why"):
        table.add_column(heading, no_wrap=heading == "history", overflow="fold")
    for entry in described.signature.history:
        at = f"{entry.at:%Y-%m-%d %H:%M:%S}.{entry.at.microsecond // 1000:03d} UTC"
        table.add_row(at, _status(entry.status), data(entry.by), data(entry.why))
    return table


def _status(status: str, stage: str = "") -> Text:
    text = data(status, _STYLES.get(status, ""))
    return text.append_text(data(f" ({stage})", "dim")) if stage else text


def _error(error: FailureRecord) -> str:
    message = f": {error.message}" if error.message else ""
    return f"{error.type}{message} ({error.task or 'no task'}, attempt {error.attempt}, {error.outcome})"


def _ago(moment: datetime, now: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {span((now - moment).total_seconds())} ago"
