"""``mageflow demo``: it runs, what it reports is what was told, and each of its expectations can fail."""

import copy
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from mageflow.cli.demo.command import perform_on
from mageflow.cli.demo.expectations import check
from mageflow.cli.demo.facts import Facts, gather
from mageflow.cli.demo.play import CAST, SWARM_PLACES, Play
from mageflow.cli.demo.report import show
from mageflow.cli.demo.spans import SpanRecord, read_spans
from mageflow.cli.demo.stage import set_up
from mageflow.telemetry.names import traces
from mageflow.testing import samples

pytestmark = pytest.mark.slow

Performance = tuple[Play, Facts, list[SpanRecord]]


@pytest.fixture(scope="module")
def performance(tmp_path_factory) -> Performance:
    """One performance of the demo, as short as it can be."""
    said: list[str] = []
    with set_up(tmp_path_factory.mktemp("demo"), said.append) as stage:
        play, own = perform_on(Console(file=StringIO()), stage, seconds=0.5)
        spans = read_spans(stage.own_spans, stage.worker_spans)
        facts = gather(play, stage.scrape(), own, spans, stage.worker_log)
    assert len(said) == 2
    return play, facts, spans


@pytest.fixture
def untouched(performance: Performance) -> Performance:
    """A copy of the performance that a test may falsify."""
    return copy.deepcopy(performance)


def missed(play: Play, facts: Facts, spans: list[SpanRecord]) -> set[str]:
    """The first words of the expectations that are not met."""
    return {expectation.claim for expectation in check(play, facts, spans) if not expectation.holds}


def test_every_expectation_is_met(untouched):
    """Metrics, spans and results of one performance agree with each other and with what was run."""
    expectations = check(*untouched)

    assert len(expectations) >= 16
    assert [each for each in expectations if not each.holds] == []


def lost_result(play: Play, facts: Facts) -> Facts:
    """One run that never ended."""
    play.of("print_invoice")[0].ended_at = None
    return facts


def lost_flow(play: Play, facts: Facts) -> Facts:
    """A chain that never ended."""
    play.flows[0].ended_at = None
    return facts


def skipped_step(play: Play, facts: Facts) -> Facts:
    """A parcel that was shipped without being packed."""
    next(flow for flow in play.flows if flow.kind == "chain").output["done"].remove("packed")
    return facts


def shuffled_results(play: Play, facts: Facts) -> Facts:
    """Results in the order they came."""
    next(flow for flow in play.flows if flow.kind == "swarm").output.reverse()
    return facts


def crowded_swarm(play: Play, facts: Facts) -> Facts:
    """One item more at once than was allowed."""
    return replace(facts, flows=tuple(replace(flow, most_at_once=SWARM_PLACES + 1) for flow in facts.flows))


def no_deadlock(play: Play, facts: Facts) -> Facts:
    """Two movers that never met."""
    return with_outcomes(with_outcomes(facts, "move_east", {"succeeded": 1}), "move_west", {"succeeded": 1})


def wrong_price(play: Play, facts: Facts) -> Facts:
    """A result that belongs to another order."""
    play.of("price_order")[0].output["price"] = 1
    return facts


def foreign_context(play: Play, facts: Facts) -> Facts:
    """A context of another run."""
    play.of("audit_order")[0].output["seen"]["run_id"] = "another"
    return facts


def foreign_signature(play: Play, facts: Facts) -> Facts:
    """Identifiers of another signature."""
    signed = next(result for result in play.of("greet_regular") if result.signature_key)
    signed.output["seen"]["identifiers"] = {"customer": "another"}
    return facts


def retried_crowd(play: Play, facts: Facts) -> Facts:
    """One member of the crowd that was ended by its timeout first."""
    return with_outcomes(facts, "reserve_stock", {"succeeded": CAST["reserve_stock"].runs, "timed_out": 1})


def long_delay(play: Play, facts: Facts) -> Facts:
    """A delay outside of its window."""
    first, *others = facts.staggered
    return replace(facts, staggered=(replace(first, delay_seconds=facts.window_seconds + 0.1), *others))


def refused_extension(play: Play, facts: Facts) -> Facts:
    """One extension the engine refused."""
    return replace(facts, extensions={"ok": CAST["reserve_stock"].runs - 1, "error": 1})


def no_retry(play: Play, facts: Facts) -> Facts:
    """A card that was charged at once."""
    return with_outcomes(facts, "charge_card", {"succeeded": CAST["charge_card"].runs})


def plain_failure(play: Play, facts: Facts) -> Facts:
    """A timeout that was counted as a failure."""
    return with_outcomes(facts, "ask_supplier", {"failed": CAST["ask_supplier"].runs})


def replaced_error(play: Play, facts: Facts) -> Facts:
    """A failure whose own error was lost."""
    play.of("read_file")[0].error = "ConnectionError"
    return facts


def missing_signature(play: Play, facts: Facts) -> Facts:
    """A signature that was not found."""
    return replace(facts, signature_loads={**facts.signature_loads, "missing": 1})


def uncounted_run(play: Play, facts: Facts) -> Facts:
    """A run that was not counted where it was started."""
    return replace(facts, enqueued=facts.enqueued - 1)


def lost_parent(play: Play, facts: Facts) -> Facts:
    """A span whose parent nobody exported."""
    return replace(facts, orphan_spans=("process price_order",))


def sick_telemetry(play: Play, facts: Facts) -> Facts:
    """An error in telemetry itself."""
    return replace(facts, telemetry_errors=1)


def with_outcomes(facts: Facts, name: str, outcomes: dict[str, int]) -> Facts:
    """The facts with other outcomes of one task."""
    return replace(
        facts, tasks=tuple(replace(task, outcomes=outcomes) if task.task == name else task for task in facts.tasks)
    )


@pytest.mark.parametrize(
    ("falsify", "claim"),
    [
        (lost_result, "flows ended"),
        (lost_flow, "flows ended"),
        (skipped_step, "a chain runs its steps in order"),
        (shuffled_results, "results in task order"),
        (crowded_swarm, "never runs more than"),
        (no_deadlock, "wait for each other"),
        (wrong_price, "return the result of their own order"),
        (foreign_context, "the context of its own run"),
        (foreign_signature, "hands a task its signature"),
        (retried_crowd, "the whole crowd succeeded"),
        (long_delay, "every delay lies between"),
        (refused_extension, "had its timeout extended"),
        (no_retry, "succeeds on its second attempt"),
        (plain_failure, "is timed out, and told apart"),
        (replaced_error, "fails with its own error"),
        (missing_signature, "loaded its signature"),
        (uncounted_run, "counted and traced where it was started"),
        (lost_parent, "has lost its parent"),
        (sick_telemetry, "telemetry counted no error"),
    ],
)
def test_every_expectation_can_fail(untouched, falsify, claim):
    """Where one thing is not as it should be, the expectation about it is not met."""
    play, facts, spans = untouched

    assert any(claim in each for each in missed(play, falsify(play, facts), spans))


def test_a_chain_that_lost_a_link_is_noticed(untouched):
    """Siblings in one trace are not enough: each step is linked to the one before."""
    play, facts, spans = untouched
    unlinked = [replace(span, links=()) for span in spans]

    assert any("each linked to the one before" in claim for claim in missed(play, facts, unlinked))


def test_metrics_that_differ_from_spans_are_noticed(untouched):
    """The two are compared by task and outcome."""
    play, facts, spans = untouched
    fewer = [span for span in spans if span.name != traces.SPAN_PROCESS("audit_order")]

    assert any("metrics and spans tell of the same attempts" in claim for claim in missed(play, facts, fewer))


def test_facts_name_what_was_told(performance):
    """Durations, delays and the trace are those of the spans, and log events those of the log."""
    _, facts, spans = performance
    crowd = [span for span in spans if span.name == traces.SPAN_STAGGER("reserve_stock")]

    assert [run.delay_seconds for run in facts.staggered] == sorted(
        span.attributes[traces.STAGGER_DELAY_S] for span in crowd
    )
    succeeded = [span for span in spans if span.attributes.get(traces.TASK_OUTCOME) == "succeeded"]
    assert facts.log_events["mageflow.task.finished"] == sum(span.kind == "consumer" for span in succeeded) > 0
    names = [span.name for span in facts.waterfall]
    assert names[0] == "send reserve_stock"
    assert {"process reserve_stock", "load signature", "stagger reserve_stock", "update warehouse"} <= set(names)
    assert {span.service for span in facts.waterfall} == {"demo", "demo-worker"}


def test_report_shows_every_task_delay_and_expectation(performance):
    """The report for people says what the facts say."""
    play, facts, spans = performance
    printed = StringIO()

    show(Console(file=printed, width=120), facts, check(play, facts, spans), took_seconds=1.0)

    text = printed.getvalue()
    assert [name for name in CAST if name not in text] == []
    assert all(f"{run.delay_seconds:5.2f} s" in text for run in facts.staggered)
    assert "24 granted" in text
    assert text.count("✓") == len(check(play, facts, spans))
    assert facts.waterfall[0].trace_id in text


def test_json_is_the_same_for_machines_and_serving_goes_on(tmp_path):
    """``--json`` prints one object on stdout; ``--serve`` goes on to run until Ctrl-C; ``--keep`` leaves the files."""
    arguments = ["demo", "--json", "--seconds", "0.5", "--serve", "--keep", str(tmp_path / "kept")]
    command = [sys.executable, "-c", "from mageflow.cli import main; main()", *arguments]
    with (tmp_path / "stdout").open("w") as stdout:
        process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)
    try:
        announced: list[str] = []
        for line in process.stderr:
            announced.append(line)
            if line == "The play goes on and on; Ctrl-C ends it.\n":
                break
        assert process.poll() is None, announced
        url = next(line.split()[1] for line in announced if line.startswith("metrics "))
        before = runs(url)
        deadline = time.monotonic() + 40
        while runs(url) <= before and time.monotonic() < deadline:
            time.sleep(0.2)
        grown = runs(url) - before
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    printed = (tmp_path / "stdout").read_text()
    assert grown > 0
    assert process.returncode == 0, printed[-2000:] + errors[-2000:]
    told = json.loads(printed)
    assert told["ok"] is True
    assert all(expectation["holds"] for expectation in told["expectations"])
    assert {task["task"] for task in told["tasks"]} == set(CAST)
    assert len(told["staggered"]) == CAST["reserve_stock"].runs
    assert told["waterfall"][0]["offset_seconds"] == 0
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"worker-spans.jsonl", "demo-spans.jsonl", "worker.log", "metrics.txt"} <= kept
    metrics = (tmp_path / "kept" / "metrics.txt").read_text()
    assert re.search(r"^mageflow_worker_info\{.*\} 1\.0$", metrics, re.MULTILINE)


def runs(url: str) -> float:
    """How many attempts a worker has counted."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own worker
        return samples(response.read().decode()).total("mageflow_task_runs_total")
