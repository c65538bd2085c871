"""What must have come of it: each expectation compares two things that were told independently of each other."""

from collections.abc import Mapping, Sequence

from mageflow.cli.demo.expected import Expectation
from mageflow.cli.demo.facts import CROWD, Facts
from mageflow.cli.demo.flow_expectations import check_flows
from mageflow.cli.demo.play import CAST, SWARM_ITEMS, Play
from mageflow.cli.demo.spans import SpanRecord
from mageflow.telemetry.names import traces

__all__ = ["Expectation", "check"]


def check(play: Play, facts: Facts, spans: Sequence[SpanRecord]) -> list[Expectation]:
    """Every expectation of the demo, met or not, in the order it is shown."""
    return [
        each(play, facts, spans)
        for each in (
            _every_run_ended,
            _plain_tasks_return,
            _context_is_theirs,
            _signatures_are_theirs,
            _plain_runs_have_signatures,
            _crowd_survived,
            _delays_within_window,
            _extensions_granted,
            _retried_once,
            _timed_out,
            _failed_for_good,
            _loads_counted,
            *check_flows,
            _metrics_agree_with_spans,
            _every_run_enqueued,
            _traces_are_whole,
            _telemetry_is_well,
        )
    ]


def _every_run_ended(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    missing = [f"{result.task} {result.run_id}" for result in play.results if not result.has_ended]
    missing += [f"{flow.kind} {flow.name}" for flow in play.flows if flow.ended_at is None]
    return Expectation(
        f"every one of {len(play.results)} runs and {len(play.flows)} flows ended",
        not missing and len(play.flows) == len(facts.flows) > 0,
        ", ".join(missing) or f"{play.ended} runs ended",
    )


def _plain_tasks_return(play: Play, _facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    results = [*play.of("price_order"), *play.of("print_invoice")]
    wrong = [
        result.run_id
        for result in results
        if result.output is None
        or result.output["number"] != result.number
        or (result.task == "price_order" and result.output["price"] != 100 + result.number)
    ]
    return Expectation(
        "plain tasks, asynchronous and synchronous, return the result of their own order",
        bool(results) and not wrong,
        f"{len(results) - len(wrong)} of {len(results)}",
    )


def _context_is_theirs(play: Play, _facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    results = play.of("audit_order")
    right = sum(1 for r in results if r.output is not None and r.output["seen"]["run_id"] == r.run_id)
    return Expectation(
        "@with_ctx hands a task the context of its own run", right == CAST["audit_order"].runs, f"{right} runs"
    )


def _signatures_are_theirs(play: Play, _facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    signed = [result for result in play.of("greet_regular") if result.signature_key]
    right = [
        result
        for result in signed
        if result.output is not None
        and result.output["seen"]["key"] == result.signature_key
        and result.output["seen"]["identifiers"] == result.identifiers
        and result.output["seen"]["task_name"] == "greet_regular"
        and result.output["number"] == result.number
    ]
    return Expectation(
        "@with_signature hands a task its signature: key, identifiers and bound values",
        len(right) == CAST["greet_regular"].signed,
        f"{len(right)} runs",
    )


def _plain_runs_have_signatures(play: Play, _facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    plain = [result for result in play.of("greet_regular") if not result.signature_key]
    right = [
        result
        for result in plain
        if result.output is not None and result.output["seen"]["identifiers"]["workflow_run_id"] == result.run_id
    ]
    return Expectation(
        "a run without a signature gets one made from the run itself, never None",
        bool(plain) and len(right) == len(plain),
        f"{len(right)} of {len(plain)} runs",
    )


def _crowd_survived(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    crowd = next(task for task in facts.tasks if task.task == CROWD)
    beyond = sum(1 for run in facts.staggered if run.total_seconds > facts.timeout_seconds)
    return Expectation(
        f"the whole crowd succeeded, although some took longer than their timeout of {facts.timeout_seconds:g} s",
        crowd.succeeded == CAST[CROWD].runs and crowd.outcomes == {"succeeded": CAST[CROWD].runs} and beyond > 0,
        f"{crowd.succeeded} succeeded, {beyond} of them would have been ended without the extension",
    )


def _delays_within_window(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    delays = [run.delay_seconds for run in facts.staggered]
    inside = [delay for delay in delays if 0 <= delay <= facts.window_seconds]
    return Expectation(
        f"every delay lies between 0 and {facts.window_seconds:g} s, and they differ",
        len(inside) == CAST[CROWD].runs and len(set(delays)) > 1,
        f"{min(delays):.2f} to {max(delays):.2f} s" if delays else "no delay was told",
    )


def _extensions_granted(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    return Expectation(
        "each delayed run had its timeout extended before it slept",
        facts.extensions == {"ok": CAST[CROWD].runs},
        ", ".join(f"{count} {result}" for result, count in facts.extensions.items()) or "none",
    )


def _retried_once(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    runs = CAST["charge_card"].runs
    attempts = [r.output["seen"]["attempt"] for r in play.of("charge_card") if r.output is not None]
    outcomes = _outcomes(facts, "charge_card")
    return Expectation(
        "a task that fails once succeeds on its second attempt",
        attempts == [2] * runs and outcomes == {"retried": runs, "succeeded": runs},
        _words(outcomes),
    )


def _timed_out(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    outcomes = _outcomes(facts, "ask_supplier")
    failed = sum(1 for result in play.of("ask_supplier") if result.error is not None)
    runs = CAST["ask_supplier"].runs
    return Expectation(
        "a task that never answers is timed out, and told apart from one that failed",
        outcomes == {"timed_out": runs} and failed == runs,
        _words(outcomes),
    )


def _failed_for_good(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    outcomes = _outcomes(facts, "read_file")
    errors = [result.error or "" for result in play.of("read_file")]
    runs = CAST["read_file"].runs
    return Expectation(
        "a task that fails for good fails with its own error, after its one retry",
        outcomes == {"retried": runs, "failed": runs} and all("BrokenFileError" in error for error in errors),
        _words(outcomes),
    )


def _loads_counted(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    signed = sum(part.signed for part in CAST.values()) + SWARM_ITEMS + 3  # and the steps of the chain
    return Expectation(
        "each signed run loaded its signature, in one round trip",
        facts.signature_loads == {"hit": signed},
        _words(facts.signature_loads),
    )


def _metrics_agree_with_spans(_play: Play, facts: Facts, spans: Sequence[SpanRecord]) -> Expectation:
    differing: list[str] = []
    for task in facts.tasks:
        told: dict[str, int] = {}
        for span in spans:
            if span.name == traces.SPAN_PROCESS(task.task):
                outcome = str(span.attributes.get(traces.TASK_OUTCOME, "none"))
                told[outcome] = told.get(outcome, 0) + 1
        if told != dict(task.outcomes):
            differing.append(f"{task.task}: spans {_words(told)}, metrics {_words(task.outcomes)}")
    attempts = sum(sum(task.outcomes.values()) for task in facts.tasks)
    return Expectation(
        "metrics and spans tell of the same attempts and outcomes",
        not differing and attempts > 0,
        "; ".join(differing) or f"{attempts} attempts",
    )


def _every_run_enqueued(play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    return Expectation(
        "every run that was started was counted and traced where it was started",
        facts.enqueued == len(play.results),
        f"{facts.enqueued} enqueued, {len(play.results)} started",
    )


def _traces_are_whole(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    return Expectation(
        "no span of the two processes has lost its parent",
        facts.span_count > 0 and not facts.orphan_spans,
        f"{facts.span_count} spans in {facts.trace_count} traces"
        + (f"; without a parent: {', '.join(facts.orphan_spans[:5])}" if facts.orphan_spans else ""),
    )


def _telemetry_is_well(_play: Play, facts: Facts, _spans: Sequence[SpanRecord]) -> Expectation:
    return Expectation(
        "telemetry counted no error of its own", facts.telemetry_errors == 0, f"{facts.telemetry_errors} errors"
    )


def _outcomes(facts: Facts, name: str) -> dict[str, int]:
    return dict(next(task.outcomes for task in facts.tasks if task.task == name))


def _words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
