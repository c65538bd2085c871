"""``mageflow locks``: who holds what and who waits for whom, as a table and a tree or as JSON.

The command only reads: it takes no lock and ends no lease.
"""

import asyncio
import json
from typing import TYPE_CHECKING

import click

from mageflow.cli.state import hatchet_namespace, open_console, open_redis, state_options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

    from mageflow.locks import Holder, LocksReport, Waiter

__all__ = ["locks"]

_ID_WIDTH = 12

_EPILOG = """\b
Examples:
  mageflow locks                                   a table of holders and a tree of who waits for whom
  mageflow locks --redis-url redis://db:6379/1     another Redis
  mageflow locks --namespace prod --raw-keys       one Hatchet namespace, with resource keys as they are
  mageflow locks --json | jq '.waiters[] | select(.waited_s > 60)'

\b
Resource keys are the program's own data, so a hash is shown: the same as in spans and logs.
Exit status: 0 success, 1 Redis did not answer, 2 wrong usage.
"""


@click.command(epilog=_EPILOG)
@state_options
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    help="Most holders, and most waiters, to read.",
)
@click.option("--raw-keys", is_flag=True, help="Show resource keys as they are.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def locks(redis_url: str | None, namespace: str | None, limit: int, *, raw_keys: bool, as_json: bool) -> None:
    """Show every lock: who holds it, since when, and who waits for it.

    Each line has the task, run, worker and trace ids. Deadlocks are broken at the moment they close, so the command
    normally shows none. One round trip to Redis; nothing is changed.
    """
    report = asyncio.run(_read(redis_url, namespace, limit, raw_keys=raw_keys))
    if as_json:
        click.echo(json.dumps(report.document(), ensure_ascii=False))
        return
    _draw(open_console(), report)


async def _read(redis_url: str | None, namespace: str | None, limit: int, *, raw_keys: bool) -> "LocksReport":
    from mageflow.config import Settings
    from mageflow.locks import LocksReport
    from mageflow.store import Keys, LockStore

    settings = Settings()
    async with open_redis(redis_url, settings) as port:
        store = LockStore(port, Keys(settings.key_prefix, hatchet_namespace(namespace)))
        return LocksReport.of(await store.snapshot(limit), raw_keys=raw_keys)


def _draw(console: "Console", report: "LocksReport") -> None:
    if not report.holders and not report.waiters:
        console.print("no lock is held")
        return
    console.print(_holders_table(report))
    if report.waiters:
        console.print()
        console.print(_waits_tree(report))
    for cycle in report.cycles:
        path = " → ".join(f"{each.task or 'a program'} ({_short(each.run_id)}) waits for {each.lock}" for each in cycle)
        console.print(f"\n[bold red]deadlock[/]: {path} → the first")
    console.print(
        f"\n{report.holders_total} held, {report.waiters_total} waiting, longest chain of waits {report.longest_path}"
        + (
            f"; only {len(report.holders)} holders and {len(report.waiters)} waiters are shown"
            if report.is_truncated
            else ""
        ),
        style="dim",
    )


def _holders_table(report: "LocksReport") -> "Table":
    from rich import box
    from rich.table import Table

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
        is_gone = each.lease_remaining_s <= 0
        table.add_row(
            each.lock,
            each.resource,
            each.task or "a program",
            _seconds(each.held_s),
            str(each.waiters) if each.waiters else "",
            each.run_id,
            str(each.attempt or ""),
            _short(each.worker),
            each.trace_id,
            str(each.token),
            "[red]owner gone[/]" if is_gone else _seconds(each.lease_remaining_s),
        )
    return table


def _waits_tree(report: "LocksReport") -> "Tree":
    """Who waits for whom. The roots are runs that hold locks and wait for none (or for one that is not shown)."""
    from rich.tree import Tree

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
                again = each.run_id in drawn
                leaf = branch.add(
                    f"{each.position}. [bold]{each.task or 'a program'}[/] waits for {_named(each)} "
                    f"{_seconds(each.waited_s)} [dim]run {each.run_id}{' (see above)' if again else ''}[/]"
                )
                if not again:
                    grow(leaf, each.run_id)

    tree = Tree("who waits for whom", guide_style="dim")
    tops = [run for run in held_by if run not in waiting_runs]
    for run_id in [*tops, *held_by]:
        wanted = any(waiting_for.get((each.lock, each.resource)) for each in held_by[run_id])
        if run_id in drawn or not wanted:
            continue
        first = held_by[run_id][0]
        names = ", ".join(_named(each) for each in held_by[run_id])
        grow(tree.add(f"[bold]{first.task or 'a program'}[/] holds {names} [dim]run {run_id}[/]"), run_id)
    return tree


def _named(each: "Holder | Waiter") -> str:
    return f"{each.lock}({each.resource})" if each.resource else each.lock


def _short(identity: str) -> str:
    return identity if len(identity) <= _ID_WIDTH else f"{identity[:_ID_WIDTH]}…"


def _seconds(seconds: float) -> str:
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
