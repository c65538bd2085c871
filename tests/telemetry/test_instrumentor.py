"""Beside Hatchet's own instrumentor, the real one: no doubled span, no lost link, and a warning about payloads."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mageflow.telemetry import instrumentor

FLOW_TRACE, FLOW_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PREVIOUS_STEP = "c7ad6b7169203331"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("opentelemetry.instrumentation") is None
    or importlib.util.find_spec("opentelemetry.exporter") is None,
    reason="hatchet-sdk[otel] is not installed",
)


def run(root: Path, **environment: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.telemetry.hatchet_instrumentor_run"],
        cwd=root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def said(root: Path) -> dict[str, Any]:
    """One run beside the instrumentor; see ``hatchet_instrumentor_run.py``."""
    return run(root)


def attempts(said: dict[str, Any]) -> list[dict[str, Any]]:
    return [span for span in said["spans"] if span["name"] != "query"]


def test_it_is_detected_by_its_footprints(said: dict[str, Any]):
    """Constructing it to find out would add an exporter."""
    assert (said["before"], said["after"]) == (False, True)


def test_an_enqueue_has_one_span_which_is_theirs(said: dict[str, Any]):
    """No ``send`` of ours, and the ``traceparent`` is the one they wrote; our stamps are there."""
    assert said["producer_spans"] == ["hatchet.run_workflow", "hatchet.run_workflow"]
    assert said["sent"]["mageflow_enqueued_at"]
    assert said["sent"]["user"] == "kept"
    assert said["sent"]["traceparent"].split("-")[2] == attempts(said)[0]["parent"]


def test_a_flow_step_hangs_under_the_flows_start(said: dict[str, Any]):
    """We choose what is current around their span, and so where it goes."""
    assert said["flow_span_parent"] == FLOW_SPAN
    assert said["flow"]["traceparent"].split("-")[1] == FLOW_TRACE


def test_children_of_durable_tasks_get_their_context_from_us(said: dict[str, Any]):
    """The instrumentor injects nothing there."""
    assert said["durable"]["traceparent"].split("-")[1:3] == [FLOW_TRACE, FLOW_SPAN]


def test_an_attempt_has_one_span_with_attributes_of_both(said: dict[str, Any]):
    """Ours go on theirs; user code nests under it."""
    plain = attempts(said)[0]
    assert (plain["name"], plain["scope"]) == ("hatchet.start_step_run", "hatchet_sdk.opentelemetry.instrumentor")
    assert plain["attributes"]["mageflow.task.outcome"] == "succeeded"
    assert plain["attributes"]["mageflow.task.attempt"] == 1
    assert plain["attributes"]["instrumentor"] == "hatchet"
    assert said["spans"][0]["parent"] == plain["id"]
    assert said["started"][0]["span_id"] == plain["id"]


def test_a_timeout_is_an_error_on_their_span_too(said: dict[str, Any]):
    """They would leave it unset, as if it had gone well; the link to the previous step is ours as well."""
    late = attempts(said)[1]
    assert (late["status"], late["attributes"]["error.type"]) == ("ERROR", "timed_out")
    assert late["links"] == [PREVIOUS_STEP]


def test_where_they_chose_the_parent_it_is_said(said: dict[str, Any]):
    """A schedule's run cannot be made a root here: linked, and marked."""
    scheduled = attempts(said)[2]
    assert scheduled["attributes"]["mageflow.trace.parented_by"] == "hatchet"
    assert scheduled["links"] == [FLOW_SPAN]


def test_a_batch_has_a_span_of_ours(said: dict[str, Any]):
    """They make none for START_BATCH."""
    batch = attempts(said)[3]
    assert (batch["name"], batch["scope"]) == ("process send", "mageflow")
    assert batch["attributes"]["hatchet.payload"] == ""


def test_exported_inputs_are_warned_of_once(said: dict[str, Any], root: Path):
    """Unless all attributes with data of users are excluded."""
    assert [event["not_excluded"] for event in said["warned"]] == [list(instrumentor.PRIVATE_ATTRIBUTES)]
    excluded = run(root, HATCHET_CLIENT_OPENTELEMETRY_EXCLUDED_ATTRIBUTES=json.dumps(instrumentor.PRIVATE_ATTRIBUTES))
    assert excluded["warned"] == []
    assert excluded["runs"] == said["runs"] == 4.0
    assert excluded["errors"] == said["errors"] == 0.0


def test_without_the_sdk_nothing_is_at_work():
    """A producer that never loaded the SDK is not asked to."""
    program = (
        "import sys; from mageflow.telemetry import instrumentor as i; "
        "print(i.wraps_producer(), i.consumer_span(), tuple(i.unexcluded_attributes()), 'hatchet_sdk' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False None () False"


def test_an_sdk_without_the_instrumentor_is_no_instrumentor():
    """The SDK is loaded in most programs; that alone says nothing."""
    import hatchet_sdk

    assert hatchet_sdk
    assert not instrumentor.wraps_producer()
    assert instrumentor.consumer_span() is None
