"""The expectations of the demo. Each compares values from at least two independent sources."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mageflow.cli.demo.scenario import STAGGERED_TASK, TASKS, Results
from mageflow.cli.demo.shop import CHAIN, DEADLOCK_PAIR, SWARM_CONCURRENCY, SWARM_ITEMS, Expected, Run
from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.cli.demo.shop.tasks import OUTCOMES, STAGGER_TIMEOUT, STAGGER_WINDOW
from mageflow.cli.demo.summary import Summary, members_of
from mageflow.telemetry.names import traces

__all__ = ["Expectation", "Observed", "check"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One claim about the demo, whether it holds, and what was found."""

    claim: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One demo: the runs as this program saw them, and the telemetry of both processes."""

    results: Results
    expected: Expected
    """What the workload says it causes."""
    summary: Summary
    spans: Sequence[SpanRecord]
    """In the order they started."""


def check(observed: Observed) -> list[Expectation]:
    """All expectations, in the order they are shown."""
    results, summary, spans = observed.results, observed.summary, observed.spans
    return [
        *_results(results, summary),
        *_stagger(summary),
        *_attempts(results, summary),
        *_flows(results, summary, spans),
        *_telemetry(observed),
    ]


def _results(results: Results, summary: Summary) -> Iterator[Expectation]:
    missing = [f"{run.name} {run.run_id}" for run in [*results.runs, *results.flows] if run.ended_at is None]
    yield Expectation(
        f"all {len(results.runs)} runs and {len(results.flows)} flows ended",
        not missing and len(results.flows) == len(summary.flows) > 0,
        ", ".join(missing) or f"{results.ended} runs ended",
    )
    reserved = results.of("order.reserve")
    yield _each(
        "plain tasks, asynchronous and synchronous, return the result of their own order",
        [*results.of("checkout.charge"), *results.of("report.render")],
        lambda run: run.output["number"] == run.number and run.output["price"] == 100 + run.number,
    )
    yield _each(
        "@with_ctx gives a task the context of its own run",
        results.of("order.audit"),
        lambda run: run.output["received"]["run_id"] == run.run_id,
    )
    yield _each(
        "@with_signature gives a task its signature: key, identifiers and bound values",
        [run for run in reserved if run.key],
        lambda run: (
            run.output["number"] == run.number
            and run.output["received"] == {"key": run.key, "identifiers": run.identifiers, "task_name": run.name}
        ),
    )
    yield _each(
        "a run without a signature gets one that is made from the run itself",
        [run for run in reserved if not run.key],
        lambda run: run.output["received"]["identifiers"]["workflow_run_id"] == run.run_id,
    )


def _each(claim: str, runs: Sequence[Run], is_right: Callable[[Run], bool]) -> Expectation:
    """Expect that each run has an output, and the right one."""
    right = sum(1 for run in runs if run.output is not None and is_right(run))
    return Expectation(claim, 0 < len(runs) == right, f"{right} of {len(runs)} runs")


def _stagger(summary: Summary) -> Iterator[Expectation]:
    runs, window, timeout = TASKS[STAGGERED_TASK].runs, STAGGER_WINDOW.total_seconds(), STAGGER_TIMEOUT.total_seconds()
    task = next(task for task in summary.tasks if task.task == STAGGERED_TASK)
    longer = sum(1 for run in summary.staggered if run.total_seconds > timeout)
    yield Expectation(
        f"all staggered runs succeeded, although some took longer than their timeout of {timeout:g} s",
        task.succeeded == runs and task.outcomes == {"succeeded": runs} and longer > 0,
        f"{task.succeeded} succeeded; without the extension {longer} of them time out",
    )
    delays = [run.delay_seconds for run in summary.staggered]
    yield Expectation(
        f"every delay is between 0 and {window:g} s, and the delays differ",
        len(delays) == runs and all(0 <= delay <= window for delay in delays) and len(set(delays)) > 1,
        f"{min(delays):.2f} to {max(delays):.2f} s" if delays else "no delay was recorded",
    )
    yield Expectation(
        "each delayed run had its timeout extended before its delay",
        summary.extensions == {"ok": runs},
        _listed(summary.extensions),
    )


_ENDS: Mapping[str, tuple[str, Callable[[Run], bool]]] = {
    "checkout.flaky": (
        "a task that fails once succeeds on its second attempt",
        lambda run: run.output is not None and run.output["received"]["attempt"] == 2,  # noqa: PLR2004 - the second attempt
    ),
    "checkout.hang": (
        "a task that never answers times out, and is not counted as failed",
        lambda run: run.error is not None,
    ),
    "checkout.refuse": (
        "a task that always fails is retried once, and its caller gets the task's own error",
        lambda run: "PaymentRefusedError" in (run.error or ""),
    ),
}
"""By task: a claim about its attempts, and what must be true of the result of each run."""


def _attempts(results: Results, summary: Summary) -> Iterator[Expectation]:
    for task, (claim, is_right) in _ENDS.items():
        outcomes, runs = summary.outcomes(task), results.of(task)
        wanted = dict.fromkeys(OUTCOMES[task], TASKS[task].runs)
        yield Expectation(claim, outcomes == wanted and all(is_right(run) for run in runs), _listed(outcomes))


def _flows(results: Results, summary: Summary, spans: Sequence[SpanRecord]) -> Iterator[Expectation]:
    chain, swarm = (next((run for run in results.flows if run.kind == kind), None) for kind in ("chain", "swarm"))
    done = chain.output["done"] if chain is not None and isinstance(chain.output, dict) else []
    outcomes = [flow.outcomes for flow in summary.flows if flow.kind == "chain"]
    yield Expectation(
        "a chain runs its steps in order, each with the result of the step before",
        done == ["picked", "wrapped", "shipped"] and outcomes == [{"succeeded": 1}],
        ", ".join(done) or (chain.error if chain is not None and chain.error else "no result"),
    )
    steps = members_of(CHAIN, spans)
    parents = {(span.trace_id, span.parent_id) for span in steps}
    links = sum(1 for before, after in pairwise(steps) if before.span_id in after.links)
    count = len({trace_id for trace_id, _ in parents})
    yield Expectation(
        "a chain is one trace of siblings, each linked to the step before",
        (len(steps), count, links) == (3, 1, 2),
        f"{len(steps)} steps, {links} links, {count} trace",
    )
    items = swarm.output if swarm is not None and isinstance(swarm.output, list) else []
    numbers = [item.get("number") if isinstance(item, dict) else None for item in items]
    concurrent = [flow.max_concurrent for flow in summary.flows if flow.kind == "swarm"]
    yield Expectation(
        f"a swarm returns its results in task order, and runs at most {SWARM_CONCURRENCY} items at once",
        numbers == list(range(SWARM_ITEMS)) and len(concurrent) == 1 and 0 < concurrent[0] <= SWARM_CONCURRENCY,
        f"{len(items)} results, at most {max(concurrent, default=0)} at once"
        + (f"; {swarm.error}" if swarm is not None and swarm.error else ""),
    )
    attempts = sorted(
        run.output["received"]["attempt"] for task in DEADLOCK_PAIR for run in results.of(task) if run.output
    )
    counted = [summary.outcomes(task) for task in DEADLOCK_PAIR]
    yield Expectation(
        "a deadlock of two tasks is found at once: one is the victim, is retried, and both succeed",
        attempts == [1, 2]
        and sorted(sum(each.values()) for each in counted) == [1, 2]
        and all(each.get("succeeded") == 1 for each in counted)
        and summary.deadlocks_by_resolution == {"victim_retried": 1}
        and len(summary.deadlocks) == 1,
        f"attempts {attempts}, {_listed(summary.deadlocks_by_resolution)}, {len(summary.deadlocks)} in the log",
    )


def _telemetry(observed: Observed) -> Iterator[Expectation]:
    results, summary, spans = observed.results, observed.summary, observed.spans
    yield Expectation(
        "each signed run loaded its signature, in one round trip",
        summary.signature_loads == dict(observed.expected.loads),
        _listed(summary.signature_loads),
    )
    differences: list[str] = []
    for task in summary.tasks:
        names = {traces.SPAN_PROCESS(task.task)}
        recorded = Counter(
            str(span.attributes.get(traces.TASK_OUTCOME, "none")) for span in spans if span.name in names
        )
        if recorded != dict(task.outcomes):
            differences.append(f"{task.task}: spans {_listed(recorded)}, metrics {_listed(task.outcomes)}")
    attempts = sum(sum(task.outcomes.values()) for task in summary.tasks)
    yield Expectation(
        "metrics and spans have the same attempts and outcomes",
        not differences and attempts > 0,
        "; ".join(differences) or f"{attempts} attempts",
    )
    yield Expectation(
        "each started run is counted in the program that started it",
        summary.enqueued == len(results.runs),
        f"{summary.enqueued} enqueued, {len(results.runs)} started",
    )
    orphans = f"; without a parent: {', '.join(summary.orphan_spans[:5])}" if summary.orphan_spans else ""
    yield Expectation(
        "every span of the two processes has its parent",
        summary.span_count > 0 and not summary.orphan_spans,
        f"{summary.span_count} spans in {summary.trace_count} traces{orphans}",
    )
    errors = summary.telemetry_errors
    yield Expectation("telemetry has no error of its own", errors == 0, f"{errors} errors")


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
