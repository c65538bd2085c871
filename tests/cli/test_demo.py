"""``mageflow demo``: it runs, its report says what was recorded, and each of its expectations can fail."""

import copy
import json
import re
import signal
import sys
import time
import urllib.request
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from mageflow.cli.demo import session
from mageflow.cli.demo.expectations import Observed, check
from mageflow.cli.demo.report import show
from mageflow.cli.demo.scenario import TASKS
from mageflow.cli.demo.services import start_services
from mageflow.cli.demo.shop import SWARM_CONCURRENCY
from mageflow.cli.demo.shop.spans import SpanRecord
from mageflow.cli.demo.shop.tasks import STAGGER_WINDOW
from mageflow.cli.demo.summary import max_concurrent
from mageflow.telemetry.names import traces
from mageflow.testing import samples
from tests.started_program import StartedProgram

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Observed:
    """One demo, as short as possible."""
    lines: list[str] = []
    with start_services(tmp_path_factory.mktemp("demo"), lines.append) as services:
        observed = session.observe(Console(file=StringIO()), services, seconds=0.5)
    assert len(lines) == 2
    for run in [*observed.results.runs, *observed.results.flows]:
        run.result = None  # it holds the client, which cannot be copied
    return observed


@pytest.fixture
def observed(demo: Observed) -> Observed:
    """A copy of the demo that a test may change."""
    return copy.deepcopy(demo)


def missed(observed: Observed) -> set[str]:
    """The claims of the expectations that are not met."""
    return {expectation.claim for expectation in check(observed) if not expectation.holds}


def test_every_expectation_is_met(observed):
    """Metrics, spans and results of one demo agree with each other and with the workload."""
    assert len(check(observed)) == 20
    assert missed(observed) == set()


def test_workload_expects_what_the_worker_counts(observed):
    """The workload counts the attempts of all tasks, also of the ones that flows and callbacks start."""
    attempts = sum(observed.expected.attempts.values())

    assert sum(1 for span in observed.spans if span.kind == "consumer") == attempts
    assert observed.expected.attempts["support.notify", "succeeded"] == 1
    assert observed.expected.deadlocks == len(observed.summary.deadlocks) == 1


def lost_result(observed: Observed) -> Observed:
    """One run never ended."""
    observed.results.of("report.render")[0].ended_at = None
    return observed


def lost_flow(observed: Observed) -> Observed:
    """The chain never ended."""
    flow(observed, "chain").ended_at = None
    return observed


def skipped_step(observed: Observed) -> Observed:
    """The order was shipped and not wrapped."""
    flow(observed, "chain").output["done"].remove("wrapped")
    return observed


def reversed_results(observed: Observed) -> Observed:
    """The results of the swarm are not in task order."""
    flow(observed, "swarm").output.reverse()
    return observed


def too_many_items(observed: Observed) -> Observed:
    """One item more than allowed ran at once."""
    flows = tuple(replace(each, max_concurrent=SWARM_CONCURRENCY + 1) for each in observed.summary.flows)
    return with_summary(observed, flows=flows)


def no_deadlock(observed: Observed) -> Observed:
    """Both tasks of the deadlock succeeded on their first attempt."""
    return with_outcomes(with_outcomes(observed, "order.pay", {"succeeded": 1}), "order.pack", {"succeeded": 1})


def wrong_price(observed: Observed) -> Observed:
    """A result belongs to another order."""
    observed.results.of("checkout.charge")[0].output["price"] = 1
    return observed


def foreign_context(observed: Observed) -> Observed:
    """A task received the context of another run."""
    observed.results.of("order.audit")[0].output["received"]["run_id"] = "another"
    return observed


def foreign_signature(observed: Observed) -> Observed:
    """A task received the identifiers of another signature."""
    signed = next(run for run in observed.results.of("order.reserve") if run.key)
    signed.output["received"]["identifiers"] = {"customer": "another"}
    return observed


def foreign_run(observed: Observed) -> Observed:
    """A run without a signature received one of another run."""
    unsigned = next(run for run in observed.results.of("order.reserve") if not run.key)
    unsigned.output["received"]["identifiers"]["workflow_run_id"] = "another"
    return observed


def timed_out_stagger(observed: Observed) -> Observed:
    """One staggered attempt timed out and was run again."""
    return with_outcomes(observed, "stock.sync", {"succeeded": TASKS["stock.sync"].runs, "timed_out": 1})


def long_delay(observed: Observed) -> Observed:
    """A delay is longer than the window."""
    first, *others = observed.summary.staggered
    longer = replace(first, delay_seconds=STAGGER_WINDOW.total_seconds() + 0.1)
    return with_summary(observed, staggered=(longer, *others))


def refused_extension(observed: Observed) -> Observed:
    """The engine refused one extension."""
    return with_summary(observed, extensions={"ok": TASKS["stock.sync"].runs - 1, "error": 1})


def no_retry(observed: Observed) -> Observed:
    """The task that fails once was not retried."""
    return with_outcomes(observed, "checkout.flaky", {"succeeded": TASKS["checkout.flaky"].runs})


def plain_failure(observed: Observed) -> Observed:
    """A timeout was counted as a failure."""
    return with_outcomes(observed, "checkout.hang", {"failed": TASKS["checkout.hang"].runs})


def replaced_error(observed: Observed) -> Observed:
    """The caller got another error than the one of the task."""
    observed.results.of("checkout.refuse")[0].error = "ConnectionError"
    return observed


def missing_signature(observed: Observed) -> Observed:
    """A signature was not found."""
    return with_summary(observed, signature_loads={**observed.summary.signature_loads, "missing": 1})


def uncounted_run(observed: Observed) -> Observed:
    """A run was not counted in the program that started it."""
    return with_summary(observed, enqueued=observed.summary.enqueued - 1)


def lost_parent(observed: Observed) -> Observed:
    """The parent of a span was not exported."""
    return with_summary(observed, orphan_spans=("process checkout.charge",))


def telemetry_error(observed: Observed) -> Observed:
    """Telemetry counted an error of its own."""
    return with_summary(observed, telemetry_errors=1)


def unlinked_steps(observed: Observed) -> Observed:
    """The steps of the chain are siblings in one trace, but not linked."""
    return replace(observed, spans=[replace(span, links=()) for span in observed.spans])


def missing_spans(observed: Observed) -> Observed:
    """The attempts of one task are in the metrics, but not in the spans."""
    name = traces.SPAN_PROCESS("order.audit")
    return replace(observed, spans=[span for span in observed.spans if span.name != name])


def flow(observed: Observed, kind: str):
    """The chain or the swarm of the demo."""
    return next(run for run in observed.results.flows if run.kind == kind)


def with_summary(observed: Observed, **changes) -> Observed:
    """The demo with other values in its summary."""
    return replace(observed, summary=replace(observed.summary, **changes))


def with_outcomes(observed: Observed, name: str, outcomes: dict[str, int]) -> Observed:
    """The demo with other outcomes of one task."""
    tasks = (replace(task, outcomes=outcomes) if task.task == name else task for task in observed.summary.tasks)
    return with_summary(observed, tasks=tuple(tasks))


@pytest.mark.parametrize(
    ("falsify", "claim"),
    [
        (lost_result, "flows ended"),
        (lost_flow, "flows ended"),
        (skipped_step, "a chain runs its steps in order"),
        (reversed_results, "results in task order"),
        (too_many_items, "runs at most 4 items at once"),
        (no_deadlock, "a deadlock of two tasks is found"),
        (wrong_price, "return the result of their own order"),
        (foreign_context, "the context of its own run"),
        (foreign_signature, "gives a task its signature"),
        (foreign_run, "made from the run itself"),
        (timed_out_stagger, "all staggered runs succeeded"),
        (long_delay, "every delay is between"),
        (refused_extension, "had its timeout extended"),
        (no_retry, "succeeds on its second attempt"),
        (plain_failure, "times out, and is not counted as failed"),
        (replaced_error, "gets the task's own error"),
        (missing_signature, "loaded its signature"),
        (uncounted_run, "counted in the program that started it"),
        (lost_parent, "has its parent"),
        (telemetry_error, "telemetry has no error"),
        (unlinked_steps, "each linked to the step before"),
        (missing_spans, "metrics and spans have the same attempts"),
    ],
)
def test_every_expectation_can_fail(observed, falsify, claim):
    """If one value is wrong, the expectation about it is not met."""
    assert any(claim in each for each in missed(falsify(observed)))


def test_the_falsifications_cover_every_expectation(observed):
    """No expectation is without a test that makes it fail."""
    cases = next(mark.args[1] for mark in test_every_expectation_can_fail.pytestmark if mark.name == "parametrize")

    claims = [expectation.claim for expectation in check(observed)]
    assert [claim for claim in claims if not any(part in claim for _, part in cases)] == []


def test_summary_has_the_recorded_values(demo):
    """Durations, delays and the trace are those of the spans, and log events those of the log."""
    summary, spans = demo.summary, demo.spans
    staggered = [span for span in spans if span.name == traces.SPAN_STAGGER("stock.sync")]

    assert [run.delay_seconds for run in summary.staggered] == sorted(
        span.attributes[traces.STAGGER_DELAY_S] for span in staggered
    )
    succeeded = [span for span in spans if span.attributes.get(traces.TASK_OUTCOME) == "succeeded"]
    assert summary.log_events["mageflow.task.finished"] == sum(span.kind == "consumer" for span in succeeded) > 0
    names = [span.name for span in summary.waterfall]
    assert names[0] == "send stock.sync"
    assert {"process stock.sync", "load signature", "stagger stock.sync", "update warehouse"} <= set(names)
    assert {span.service for span in summary.waterfall} == {"demo", "demo-worker"}


def test_report_shows_every_task_delay_and_expectation(demo):
    """The report has each task, each delay, each expectation and the trace id of the summary."""
    printed = StringIO()

    show(Console(file=printed, width=120), demo.summary, check(demo), took_seconds=1.0)

    text = printed.getvalue()
    assert [name for name in TASKS if name not in text] == []
    assert all(f"{run.delay_seconds:5.2f} s" in text for run in demo.summary.staggered)
    assert "24 granted" in text
    assert text.count("✓") == len(check(demo))
    assert demo.summary.waterfall[0].trace_id in text


def test_report_fits_a_terminal_of_80_columns(demo):
    """No line is longer than 80 characters, and no cell of the table of tasks is wrapped."""
    printed = StringIO()

    show(Console(file=printed, width=80), demo.summary, check(demo), took_seconds=1.0)

    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    table = [line for line in lines[: next(n for n, line in enumerate(lines) if line.startswith("Stagger"))] if line]
    assert [task for task in TASKS if sum(line.startswith(f"{task} ") for line in table) != 1] == []
    assert any(line.endswith("4 succeeded  4 retried") for line in table)


def test_json_report_then_runs_until_interrupted(tmp_path):
    """``--json`` prints one object on stdout; ``--serve`` starts runs until Ctrl-C; ``--keep`` leaves the files."""
    arguments = ["demo", "--json", "--seconds", "0.5", "--serve", "--keep", str(tmp_path / "kept")]
    command = [sys.executable, "-c", "from mageflow.cli import main; main()", *arguments]
    with StartedProgram(command) as run:
        printed: list[str] = []
        while "Runs are started until Ctrl-C.\n" not in printed:
            printed.append(run.error_line())
        url = next(line.split()[1] for line in printed if line.startswith("metrics "))
        before = attempts(url)
        deadline = time.monotonic() + 60
        while attempts(url) <= before:
            assert time.monotonic() < deadline, "no run was started"
            time.sleep(0.2)
        run.send_signal(signal.SIGINT)
        status, output, errors = run.ended()

    report = json.loads(output)
    assert [expectation for expectation in report["expectations"] if not expectation["holds"]] == []
    assert report["ok"] is True
    assert status == 0, errors[-2000:]
    assert {task["task"] for task in report["tasks"]} == set(TASKS)
    assert len(report["staggered"]) == TASKS["stock.sync"].runs
    assert report["waterfall"][0]["name"] == "send stock.sync"
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"worker-spans.jsonl", "demo-spans.jsonl", "worker.log", "metrics.txt"} <= kept
    metrics = (tmp_path / "kept" / "metrics.txt").read_text()
    assert re.search(r"^mageflow_worker_info\{.*\} 1\.0$", metrics, re.MULTILINE)


def test_attempts_that_hand_their_place_on_are_not_concurrent():
    """The span of an attempt ends after the next one has begun; the bodies follow each other."""

    def span(name: str, span_id: str, parent_id: str, start: float, end: float) -> SpanRecord:
        return SpanRecord(name, "internal", "t", span_id, parent_id, (), start, end, "unset", "worker", {}, ())

    before, after = span("process a", "1", "", 0.0, 3.0), span("process a", "2", "", 2.0, 5.0)
    bodies = [span("execute a", "3", "1", 0.5, 1.5), span("execute a", "4", "2", 2.5, 4.5)]
    overlapping = span("execute a", "5", "2", 1.0, 2.0)

    assert max_concurrent([before, after], [before, after, *bodies]) == 1
    assert max_concurrent([before, after], [before, after, *bodies, overlapping]) == 2


def attempts(url: str) -> float:
    """How many attempts a worker has counted."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own worker
        return samples(response.read().decode()).total("mageflow_task_runs_total")
