"""What the first screen shows: tasks, staggers, locks and deadlocks, as renderables of rich."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mageflow.cli.console import data, span
from mageflow.cli.top.sources.snapshot import BrokenDeadlock, Sleeper, Snapshot, TaskRow
from mageflow.cli.top.sources.wait_forest import HeldLock, WaitingRun, wait_forest
from mageflow.cli.top.views.durations import short
from mageflow.locks import LocksReport

__all__ = ["deadlocks_text", "locks_tree", "staggers_table", "status_line", "tasks_table"]

_PHASES = {"loading": "load", "stagger": "stagger", "lock_wait": "lock", "running": "run", "cancelling": "cancel"}
_ID_WIDTH = 8
_BAR = 12
_JUST_BROKEN_SECONDS = 60.0
_NO_TASK = "a program"
_WIDE = 120
_STAGGER_WIDTH = 54
_TASK_WIDTH = 12
_LEFT_OUT = frozenset({"load", "cancel", "failed/s", "queue p95"})


def status_line(snapshot: Snapshot) -> Text:
    """One line: workers, slots, locks, and what could not be read."""
    used = sum(each.slots_used for each in snapshot.workers)
    slots = sum(each.slots for each in snapshot.workers)
    parts = [
        f"{len(snapshot.workers)} process{'' if len(snapshot.workers) == 1 else 'es'}",
        f"{used:.0f}/{slots:.0f} slots",
    ]
    if snapshot.locks is not None:
        parts.append(f"locks: {snapshot.locks.holders_total} held, {snapshot.locks.waiters_total} waited for")
    parts.append(f"rates over {snapshot.window_s:.0f} s")
    line = Text(" · ".join((datetime.fromtimestamp(snapshot.at).astimezone().strftime("%H:%M:%S"), *parts)))
    for problem in snapshot.problems:
        line.append("\n")
        line.append_text(data(problem, "yellow"))
    return line


def tasks_table(snapshot: Snapshot) -> RenderableType:
    """One line for each task."""
    return _Tasks(snapshot) if snapshot.tasks else Text("no task is served", "dim")


class _Tasks:
    """The table of tasks. Where it is narrow, columns that say less are left out, and the name of a task stays."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        is_wide = options.max_width >= _WIDE
        names = ["task", "waiting", *_PHASES.values(), "ended", "failed", "/s", "failed/s", "p95", "queue p95"]
        wanted = [name for name in names if is_wide or name not in _LEFT_OUT]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, padding=(0, 1 if is_wide else 0))
        for name in wanted:
            if name == "task":
                table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1, min_width=_TASK_WIDTH)
            else:
                table.add_column(name, justify="right", no_wrap=True)
        for row in self._snapshot.tasks:
            cells = dict(zip(names, _cells(row), strict=True))
            table.add_row(*(cells[name] for name in wanted))
        yield table


def _cells(row: TaskRow) -> Iterator[Text]:
    failed = sum(row.outcomes.get(each, 0) for each in ("failed", "timed_out"))
    yield data(row.task, "" if row.running or row.waiting else "dim")
    yield _waiting(row)
    for phase in _PHASES:
        yield Text(str(row.in_flight.get(phase, "")), "bold")
    yield Text(str(row.ended))
    yield Text(str(failed), "red") if failed else Text("0", "dim")
    yield _rate(row.per_second)
    yield _rate(row.unsuccessful_per_second, "red")
    yield _seconds(row.duration_p95, row)
    yield _seconds(row.queue_wait_p95, row)


def _waiting(row: TaskRow) -> Text:
    """Runs that wait for a worker, and for how long the oldest does."""
    if not row.waiting:
        return Text("" if row.waiting is None else "0", "dim")
    return Text(f"{row.waiting} ({short(row.oldest_waiting_s or 0.0)})", "yellow")


def _rate(value: float | None, style: str = "") -> Text:
    if value is None:
        return Text("…", "dim")
    return Text(f"{value:.2f}", style) if value else Text("0", "dim")


def _seconds(value: float | None, row: TaskRow) -> Text:
    if value is None:
        return Text("")
    return Text(short(value), "" if row.is_recent else "dim")


def staggers_table(snapshot: Snapshot) -> RenderableType:
    """Who sleeps, for how long, and in which window."""
    if not snapshot.sleepers:
        count = sum(row.in_flight.get("stagger", 0) for row in snapshot.tasks)
        windows = ", ".join(f"{task} up to {span(seconds)}" for task, seconds in snapshot.stagger_windows.items())
        lines = [Text(f"{count} attempts sleep on other hosts" if count else "no attempt sleeps", "dim")]
        if windows:
            lines.append(data(windows, "dim"))
        return Group(*lines)
    return _Staggers(snapshot.sleepers)


class _Staggers:
    """The table of sleeping attempts. Where it is narrow, each is a line without headings: task, bar, when it wakes."""

    def __init__(self, sleepers: Sequence[Sleeper]) -> None:
        self._sleepers = sleepers

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= _STAGGER_WIDTH:
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
        else:
            table = Table.grid(padding=(0, 1), expand=True)
        is_wide = table.show_header
        table.add_column("task", overflow="ellipsis", no_wrap=True, ratio=1, min_width=8)
        if is_wide:
            table.add_column("run", no_wrap=True)
        table.add_column("slept", no_wrap=True)
        for name in ("wakes in", "window") if is_wide else ("wakes in",):
            table.add_column(name, justify="right", no_wrap=True)
        for each in self._sleepers:
            task, bar, left = data(each.task), _progress(each), span(each.delay_s - each.slept_s)
            if is_wide:
                table.add_row(task, data(each.run_id[:_ID_WIDTH], "dim"), bar, left, span(each.window_s))
            else:
                table.add_row(task, bar, f"in {left}")
        yield table


def _progress(each: Sleeper) -> Text:
    """The window as a bar: what was slept, what is still to sleep, and the rest of the window."""
    window = max(each.window_s, each.delay_s, 1e-9)
    delay = round(_BAR * each.delay_s / window)
    slept = min(delay, round(_BAR * each.slept_s / window))
    return Text.assemble(("█" * slept, "cyan"), ("░" * (delay - slept), "cyan"), ("·" * (_BAR - delay), "dim"))


def locks_tree(report: LocksReport | None) -> RenderableType:
    """The wait-for graph: each held lock, its holder, and below it who waits."""
    if report is None:
        return Text("Redis is not read", "dim")
    if not report.holders:
        return Text("no lock is held", "dim")
    root = Tree(Text(f"longest chain of waits: {report.longest_path}", "dim"), guide_style="dim")

    def add_lock(branch: Tree, held: HeldLock) -> None:
        holder = held.holder
        name = f"{holder.lock}({holder.resource})" if holder.resource else holder.lock
        is_expired = holder.lease_remaining_s <= 0
        leaf = branch.add(
            Text.assemble(
                data(name, "bold"),
                " held by ",
                data(holder.task or _NO_TASK, "green"),
                data(f" {holder.run_id[:_ID_WIDTH]}", "dim"),
                f" {span(holder.held_s)}",
                (", lease expired", "red") if is_expired else "",
            )
        )
        for run in held.waiting:
            add_run(leaf, run)

    def add_run(branch: Tree, run: WaitingRun) -> None:
        waiter = run.waiter
        leaf = branch.add(
            Text.assemble(
                f"{waiter.position}. ",
                data(waiter.task or _NO_TASK, "yellow"),
                data(f" {waiter.run_id[:_ID_WIDTH]}", "dim"),
                f" waits {span(waiter.waited_s)}",
            )
        )
        for held in run.holds:
            add_lock(leaf, held)

    for each in wait_forest(report):
        add_lock(root, each)
    return root


def deadlocks_text(snapshot: Snapshot) -> RenderableType:
    """The deadlocks that were broken lately, the latest first."""
    if not snapshot.deadlocks:
        text = f"{snapshot.deadlocks_total} deadlocks since the workers started" if snapshot.deadlocks_total else "none"
        return Text(text, "dim")
    return Group(*(_deadlock(each, snapshot.at) for each in snapshot.deadlocks))


def _deadlock(each: BrokenDeadlock, now: float) -> Text:
    age = now - each.at
    text = Text.assemble(
        (f"{span(age)} ago ", "bold red" if age < _JUST_BROKEN_SECONDS else "dim"),
        data(f"victim {each.victim_task} {each.victim_run_id[:_ID_WIDTH]}, "),
        "retried" if each.resolution == "victim_retried" else "failed",
    )
    for edge in each.cycle:
        name = f"{edge.lock}({edge.resource})" if edge.resource else edge.lock
        text.append("\n  ")
        text.append_text(data(f"{edge.task} {edge.run_id[:_ID_WIDTH]} waits for {name}", "dim"))
    return text
