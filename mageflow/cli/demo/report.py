"""The report at the end of the demo."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from mageflow.cli.demo.charts import draw_stagger, draw_waterfall, duration
from mageflow.cli.demo.expectations import Expectation
from mageflow.cli.demo.progress import outcome_counts
from mageflow.cli.demo.scenario import STAGGERED_TASK
from mageflow.cli.demo.shop import CHAIN
from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.cli.demo.shop.tasks import STAGGER_TIMEOUT, STAGGER_WINDOW
from mageflow.cli.demo.summary import Summary
from mageflow.terminal import printable

__all__ = ["show"]

_MARGIN = 14
_WATERFALL_MARGIN = 62

_NEXT_STEPS = """\
[bold]mageflow demo --serve[/]           continues after the report; scrape /metrics
[bold]mageflow demo --keep DIR[/]        copies spans, log and metrics to DIR
[bold]mageflow engine[/]                 the same engine, for your own program
[bold]mageflow dashboards export DIR[/]  Grafana boards, alerts and a runbook
[bold]README.md[/]                       your first task in five minutes"""


def show(console: Console, summary: Summary, expectations: Sequence[Expectation], *, took_seconds: float) -> None:
    """Print the report."""
    _heading(console, "Tasks", "attempts by outcome from /metrics; durations from spans, without stagger delays")
    console.print(_tasks(summary))
    note = f"{len(summary.staggered)} attempts; · delay, █ body, ╎ execution timeout of the task"
    _heading(console, f"Stagger delays of {STAGGERED_TASK}", note)
    window, timeout = STAGGER_WINDOW.total_seconds(), STAGGER_TIMEOUT.total_seconds()
    width = min(72, console.width - _MARGIN)
    console.print(draw_stagger(summary.staggered, window_seconds=window, timeout_seconds=timeout, width=width))
    console.print(_stagger(summary, timeout))
    for title, spans in (
        ("One run, from the program that starts it to the code of the task", summary.waterfall),
        (f"The chain {CHAIN}, one trace across processes", summary.chain_waterfall),
    ):
        _heading(console, title, _trace(spans))
        console.print(draw_waterfall(spans, min(60, console.width - _WATERFALL_MARGIN)))
    _heading(console, "Flows and locks", "a chain, a swarm, and two tasks that take the same two locks")
    for line in _flows_and_deadlocks(summary):
        console.print(line)
    _heading(console, "Expectations", "each compares values from independent sources")
    for expectation in expectations:
        mark = Text("✓ ", "green") if expectation.holds else Text("✗ ", "bold red")
        console.print(mark + Text(expectation.claim) + Text(f"  ({printable(expectation.found)})", "dim"))
    _heading(console, "Next steps", "")
    console.print(Text.from_markup(_NEXT_STEPS))
    missed = sum(1 for expectation in expectations if not expectation.holds)
    if missed:
        console.print(Text(f"\n{missed} of {len(expectations)} expectations are not met.", "bold red"))
    else:
        console.print(Text(f"\nAll {len(expectations)} expectations are met, in {took_seconds:.0f} s.", "bold green"))


def _heading(console: Console, title: str, note: str) -> None:
    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"))
    if note:
        console.print(Text(note, "dim"))
    console.print()


def _tasks(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", header_style="bold", style="bold", no_wrap=True)
    table.add_column("", style="dim")
    for heading in ("runs", "p50", "p95"):
        table.add_column(heading, justify="right", header_style="bold", no_wrap=True)
    table.add_column("attempts by outcome", header_style="bold")
    for task in summary.tasks:
        durations = (duration(task.p50_seconds), duration(task.p95_seconds))
        table.add_row(task.task, task.shows, str(task.runs), *durations, outcome_counts(task.outcomes))
    return table


def _stagger(summary: Summary, timeout: float) -> Text:
    longer = sum(1 for run in summary.staggered if run.total_seconds > timeout)
    granted = summary.extensions.get("ok", 0)
    refused = sum(summary.extensions.values()) - granted
    loads = ", ".join(f"{count} {result}" for result, count in summary.signature_loads.items()) or "none"
    return Text.from_markup(
        f"\n[bold]{longer}[/] runs took longer than their timeout of {timeout:g} s and succeeded.\n"
        f"Timeout extensions: [bold]{granted}[/] granted, {summary.extended_seconds:.1f} s in all, {refused} refused.\n"
        f"Signature loads: [bold]{loads}[/], mean {duration(summary.signature_load_seconds, digits=2)}."
    )


def _trace(spans: Sequence[SpanRecord]) -> str:
    return f"trace {spans[0].trace_id}; ◆ marks an event" if spans else "no span was exported"


def _flows_and_deadlocks(summary: Summary) -> Iterator[Text]:
    for flow in summary.flows:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in flow.outcomes.items()) or "not ended"
        yield Text.assemble(
            (f"{flow.kind} {flow.name}", "bold"),
            f": {flow.runs} runs in {duration(flow.seconds)}, at most {flow.max_concurrent} at once, "
            f"handover {duration(flow.handover_seconds)}, {outcomes}",
        )
    for deadlock in summary.deadlocks:
        cycle = ", ".join(f"{edge['task']} waited for {edge['lock']}" for edge in deadlock["cycle"])
        text = f": {cycle}; victim {deadlock['victim']['task']} (policy: {deadlock['policy']}), which was retried"
        yield Text.assemble(("deadlock", "bold"), printable(text))
