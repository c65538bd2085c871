"""The tables of ``mageflow locks``."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mageflow.cli.console import data, print_rows, span
from mageflow.locks import Holder, LocksReport, Waiter

__all__ = ["draw"]

_NO_LIMIT = 1_000_000
_NO_TASK = "a program"
"""Shown for a lock that is taken outside of a task."""


def draw(console: Console, report: LocksReport) -> None:
    """Print the holders as a table, the waiters as a tree and the deadlocks as lines."""
    if not report.holders and not report.waiters:
        console.print("no lock is held")
        return
    print_rows(console, _holders(report))
    if report.waiters:
        console.print()
        tree = _waiters(report)
        if console.measure(tree, options=console.options.update(max_width=_NO_LIMIT)).minimum <= console.width:
            console.print(tree)
        else:
            print_rows(console, _waits(report))  # the tree would cut the ids of its deeper branches
    for cycle in report.cycles:
        path = " → ".join(f"{each.task or _NO_TASK} ({each.run_id}) waits for {each.lock}" for each in cycle)
        console.print()
        console.print(Text.assemble(("deadlock", "bold red"), ": ", data(path), " → the first"))
    summary = (
        f"{report.holders_total} held, {report.waiters_total} waiting, longest chain of waits {report.longest_path}"
    )
    if report.is_truncated:
        summary += f"; only {len(report.holders)} holders and {len(report.waiters)} waiters are shown"
    console.print()
    console.print(Text(summary, "dim"))


def _holders(report: LocksReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("lock", "key", "held by"):
        table.add_column(name, overflow="fold")
    for name in ("for", "waiting"):
        table.add_column(name, justify="right")
    table.add_column("run", overflow="fold")
    table.add_column("attempt", justify="right")
    for name in ("worker", "trace"):
        table.add_column(name, overflow="fold")
    for name in ("token", "lease"):
        table.add_column(name, justify="right")
    for each in report.holders:
        is_expired = each.lease_remaining_s <= 0
        table.add_row(
            data(each.lock),
            data(each.resource),
            data(each.task or _NO_TASK),
            span(each.held_s),
            str(each.waiters) if each.waiters else "",
            data(each.run_id),
            data(each.attempt or ""),
            data(each.worker),
            data(each.trace_id),
            str(each.token),
            Text("expired", "red") if is_expired else span(each.lease_remaining_s),
        )
    return table


def _waits(report: LocksReport) -> Table:
    """The waiters as rows, for a narrow console."""
    table = Table("waits", "place", "for lock", "key", "since", "run", "held by", "in run")
    for each in report.waiters:
        table.add_row(
            data(each.task or _NO_TASK),
            str(each.position),
            data(each.lock),
            data(each.resource),
            span(each.waited_s),
            data(each.run_id),
            data(each.holder_task or _NO_TASK),
            data(each.holder_run_id),
        )
    return table


def _waiters(report: LocksReport) -> Tree:
    """A tree with the runs that hold a lock and wait for none at the top, and below each the runs that wait for it."""
    waiting_for: dict[tuple[str, str], list[Waiter]] = {}
    for each in report.waiters:
        waiting_for.setdefault((each.lock, each.resource), []).append(each)
    held_by: dict[str, list[Holder]] = {}
    for each in report.holders:
        held_by.setdefault(each.run_id, []).append(each)
    waiting_runs = {each.run_id for each in report.waiters}
    drawn: set[str] = set()

    def grow(branch: Tree, run_id: str) -> None:
        drawn.add(run_id)
        for holding in held_by.get(run_id, ()):
            for each in waiting_for.get((holding.lock, holding.resource), ()):
                is_drawn = each.run_id in drawn
                leaf = branch.add(
                    Text.assemble(
                        f"{each.position}. ",
                        data(each.task or _NO_TASK, "bold"),
                        data(f" waits for {_resource(each)} {span(each.waited_s)} "),
                        data(f"run {each.run_id}{' (see above)' if is_drawn else ''}", "dim"),
                    )
                )
                if not is_drawn:
                    grow(leaf, each.run_id)

    tree = Tree("who waits for whom", guide_style="dim")
    # Runs that wait too come last: they are drawn here only if their own holder is not shown.
    for run_id in [*(run for run in held_by if run not in waiting_runs), *held_by]:
        is_wanted = any(waiting_for.get((each.lock, each.resource)) for each in held_by[run_id])
        if is_wanted and run_id not in drawn:
            task = held_by[run_id][0].task or _NO_TASK
            names = ", ".join(_resource(each) for each in held_by[run_id])
            label = Text.assemble(data(task, "bold"), data(f" holds {names} "), data(f"run {run_id}", "dim"))
            grow(tree.add(label), run_id)
    return tree


def _resource(each: Holder | Waiter) -> str:
    return f"{each.lock}({each.resource})" if each.resource else each.lock
