"""Flows as trees with timings."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from mageflow.cli.console import data
from mageflow.cli.top.sources.snapshot import FlowNode, MemberNode, RunAttempt, Snapshot
from mageflow.cli.top.views.durations import short

__all__ = ["flows_trees"]

_ID_WIDTH = 8
_STYLES = {
    "active": "cyan",
    "suspended": "yellow",
    "done": "green",
    "failed": "red",
    "cancelled": "magenta",
    "interrupted": "magenta",
}
_MARKS = {
    "active": "▶",
    "suspended": "⏸",
    "done": "✓",
    "failed": "✗",
    "cancelled": "✗",
    "interrupted": "✗",
    "pending": "·",
}


def flows_trees(snapshot: Snapshot) -> RenderableType:
    """Each flow as a tree of its members, with how long each run of them took."""
    if not snapshot.flows:
        is_read = snapshot.locks is not None
        return Text("no flow runs, and none ended in the last hour" if is_read else "Redis is not read", "dim")
    runs: dict[str, list[RunAttempt]] = {}
    for attempt in snapshot.attempts:
        runs.setdefault(attempt.run_id, []).append(attempt)
    trees: list[RenderableType] = []
    for flow in snapshot.flows:
        tree = Tree(_flow(flow), guide_style="dim")
        _grow(tree, flow, runs)
        trees.append(tree)
    return Group(*trees)


def _flow(flow: FlowNode) -> Text:
    text = Text.assemble(
        _mark(flow.status),
        data(f" {flow.name}", "bold"),
        data(f" {flow.kind} {flow.key.rpartition(':')[2][:_ID_WIDTH]}", "dim"),
        f" {flow.done}/{flow.total}",
    )
    if flow.seconds is not None:
        text.append(f" {short(flow.seconds)}")
    text.append_text(data(f" {flow.status}", _STYLES.get(flow.status, "dim")))
    if flow.error:
        text.append_text(data(f" {flow.error}", "red"))
    return text


def _grow(tree: Tree, flow: FlowNode, runs: Mapping[str, Sequence[RunAttempt]]) -> None:
    hidden = flow.members_total
    for member in flow.members:
        if member.role in ("step", "item"):
            hidden -= 1
        if member.nested is not None:
            _grow(tree.add(_flow(member.nested)), member.nested, runs)
        else:
            tree.add(_member(member, runs.get(member.run_id, ())))
    if hidden > 0:
        tree.add(Text(f"… {hidden} more", "dim"))


def _member(member: MemberNode, attempts: Sequence[RunAttempt]) -> Text:
    text = Text.assemble(
        _mark(member.status),
        data(f" {member.path} {member.task or 'a nested flow'}"),
    )
    if member.role not in ("step", "item"):
        text.append(f" {member.role}", "dim")
    if member.run_id:
        text.append_text(data(f" {member.run_id[:_ID_WIDTH]}", "dim"))
    if attempts:
        text.append(f" {short(sum(each.elapsed_s for each in attempts))}")
        wait = sum(each.queue_wait_s or 0.0 for each in attempts)
        text.append(f", queued {short(wait)}", "dim")
    if member.attempts > 1:
        text.append(f", {member.attempts} attempts", "yellow")
    if member.stage not in ("", member.status):
        text.append_text(data(f" {member.stage}", "dim"))
    if member.error:
        text.append_text(data(f" {member.error}", "red"))
    return text


def _mark(status: str) -> Text:
    return Text(_MARKS.get(status, "·"), _STYLES.get(status, "dim"))
