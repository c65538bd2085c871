"""What is shown at the end."""

from collections.abc import Sequence

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mageflow.cli.demo.drawings import draw_stagger, draw_waterfall
from mageflow.cli.demo.expected import Expectation
from mageflow.cli.demo.facts import CROWD, Facts
from mageflow.cli.demo.live import OUTCOME_STYLES
from mageflow.cli.demo.play import CHAIN
from mageflow.cli.demo.spans import SpanRecord

__all__ = ["show"]

_MARGIN = 14
_WATERFALL_MARGIN = 62


def show(console: Console, facts: Facts, expectations: Sequence[Expectation], *, took_seconds: float) -> None:
    """Print the report."""
    _heading(
        console, "What each task did", "attempts by outcome from /metrics; durations from spans, stagger not counted"
    )
    console.print(_tasks(facts))
    _heading(
        console,
        f"How {CROWD} was spread",
        f"{len(facts.staggered)} attempts; · asleep, █ its own work, ╎ where its timeout would have ended it",
    )
    console.print(
        draw_stagger(
            facts.staggered,
            window_seconds=facts.window_seconds,
            timeout_seconds=facts.timeout_seconds,
            width=min(72, console.width - _MARGIN),
        )
    )
    console.print(_crowd(facts), highlight=False)
    _heading(
        console, "One run, from the program that started it to the last line of its body", _trace_of(facts.waterfall)
    )
    console.print(draw_waterfall(facts.waterfall, min(60, console.width - _WATERFALL_MARGIN)))
    _heading(console, f"The chain {CHAIN}, one trace across processes", _trace_of(facts.chain_waterfall))
    console.print(draw_waterfall(facts.chain_waterfall, min(60, console.width - _WATERFALL_MARGIN)))
    _heading(console, "Together", "the chain, the swarm, and two tasks that wanted the same two locks")
    for line in _together(facts):
        console.print(line, highlight=False)
    _heading(console, "What was expected", "each compares two things that were told independently")
    for expectation in expectations:
        mark = Text("✓ ", "green") if expectation.holds else Text("✗ ", "bold red")
        console.print(mark + Text(expectation.claim) + Text(f"  ({expectation.found})", "dim"))
    missed = sum(1 for expectation in expectations if not expectation.holds)
    _heading(console, "Where to look next", "")
    console.print(_next_steps(), highlight=False)
    console.print()
    if missed:
        console.print(Text(f"{missed} of {len(expectations)} expectations were not met", "bold red"))
    else:
        console.print(Text(f"All {len(expectations)} expectations were met, in {took_seconds:.0f} s.", "bold green"))


def _heading(console: Console, title: str, note: str) -> None:
    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"))
    if note:
        console.print(Text(note, "dim"))
    console.print()


def _tasks(facts: Facts) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("task", header_style="bold", style="bold", no_wrap=True)
    table.add_column("", style="dim")
    for heading in ("runs", "p50", "p95"):
        table.add_column(heading, justify="right", header_style="bold", no_wrap=True)
    table.add_column("attempts, by outcome", header_style="bold")
    for task in facts.tasks:
        outcomes = Text("  ").join(
            Text(f"{task.outcomes[outcome]} {outcome}", style)
            for outcome, style in OUTCOME_STYLES.items()
            if outcome in task.outcomes
        )
        table.add_row(
            task.task, task.what, str(task.runs), _duration(task.p50_seconds), _duration(task.p95_seconds), outcomes
        )
    return table


_TELL_TENTHS_BELOW_SECONDS = 0.01


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{int(seconds < _TELL_TENTHS_BELOW_SECONDS)}f} ms"


def _crowd(facts: Facts) -> str:
    beyond = sum(1 for run in facts.staggered if run.total_seconds > facts.timeout_seconds)
    granted = facts.extensions.get("ok", 0)
    refused = sum(facts.extensions.values()) - granted
    loads = ", ".join(f"{count} {result}" for result, count in facts.signature_loads.items()) or "none"
    return (
        f"\n[bold]{beyond}[/] runs took longer than their timeout of {facts.timeout_seconds:g} s and still succeeded.\n"
        f"Timeout extensions: [bold]{granted}[/] granted ({facts.extended_seconds:.1f} s in all), {refused} refused.\n"
        f"Signature loads: [bold]{loads}[/], {facts.signature_load_seconds * 1000:.2f} ms each on average."
    )


def _trace_of(waterfall: Sequence[SpanRecord]) -> str:
    return f"trace {waterfall[0].trace_id}; ◆ marks an event" if waterfall else "no span was exported"


def _together(facts: Facts) -> list[str]:
    lines = [
        f"[bold]{flow.kind} {flow.name}[/]: {flow.runs} runs in {_duration(flow.seconds)}, at most {flow.most_at_once} "
        f"at once, handover {_duration(flow.handover_seconds)}, "
        + (", ".join(f"{count} {outcome}" for outcome, count in flow.outcomes.items()) or "not ended")
        for flow in facts.flows
    ]
    for deadlock in facts.deadlocks:
        path = ", ".join(f"{edge['task']} waited for {edge['lock']}" for edge in deadlock.cycle)
        lines.append(
            f"[bold]deadlock[/]: {path}; seen as it closed, {deadlock.victim} (the {deadlock.policy}) gave way "
            "and was run again"
        )
    return lines


def _next_steps() -> str:
    return (
        "[bold]mageflow demo --serve[/]           keeps it running: look at /metrics yourself\n"
        "[bold]mageflow demo --keep DIR[/]        leaves spans, logs and metrics there\n"
        "[bold]mageflow engine[/]                 the same engine, for a program of yours\n"
        "[bold]mageflow dashboards export DIR[/]  Grafana boards, alerts and a runbook\n"
        "[bold]README.md[/]                       your first task in five minutes"
    )
