"""A real worker on a real engine, with Hatchet's real instrumentor beside us."""

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk import Hatchet

from mageflow.telemetry.instrumentor import PRIVATE_ATTRIBUTES
from mageflow.testing import samples
from tests.telemetry.test_exposition import get

CANARY = "canary-7f3a"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("opentelemetry.instrumentation") is None, reason="hatchet-sdk[otel] is not installed"
    ),
]


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole: the worker may be writing the last one."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return found


def test_one_consumer_span_per_attempt_and_no_parent_missing(mageflow_worker: Any, tmp_path: Path):
    """Spawned children, synchronous bodies and retries: one trace, theirs and ours on the same spans."""
    span_file, log_file = tmp_path / "spans", tmp_path / "logs"
    mageflow_worker(Path(__file__).with_name("instrumented_worker.py"), str(span_file), str(log_file))
    hatchet = Hatchet()
    hatchet.runs.create("hi-parent", {"secret": CANARY})
    hatchet.runs.create("hi-flaky", {"secret": CANARY})

    def ended() -> list[dict[str, Any]]:
        found = [span for span in lines(span_file) if span["name"] == "hatchet.start_step_run"]
        return found if len(found) == 4 else []

    consumers = wait_for(ended)
    spans, logs = lines(span_file), lines(log_file)

    # One span per attempt, with our attributes, none of ours beside it.
    assert [span["name"] for span in spans if span["name"].startswith(("process", "send"))] == []
    by_task = {}
    for span in consumers:
        by_task.setdefault(span["attributes"]["messaging.destination.name"], []).append(span)
    outcomes = {task: [span["attributes"]["mageflow.task.outcome"] for span in each] for task, each in by_task.items()}
    assert outcomes == {"hi-parent": ["succeeded"], "hi-child": ["succeeded"], "hi-flaky": ["retried", "succeeded"]}
    assert [span["attributes"]["mageflow.task.attempt"] for span in by_task["hi-flaky"]] == [1, 2]

    # The child hangs under the call that spawned it, the user's span under the child, in its thread.
    ids = {span["context"]["span_id"]: span for span in spans}
    child, query = by_task["hi-child"][0], next(span for span in spans if span["name"] == "query")
    spawn = ids[child["parent_id"]]
    assert spawn["name"] == "hatchet.run_workflow"
    assert spawn["parent_id"] == by_task["hi-parent"][0]["context"]["span_id"]
    assert query["parent_id"] == child["context"]["span_id"]
    roots = {"hi-parent", "hi-flaky"}
    for span in spans:
        if (
            span["attributes"].get("messaging.destination.name") not in roots
            and span["name"] != "hatchet.cancel_step_run"
        ):
            assert span["parent_id"] in ids, span["name"]
    assert child["attributes"]["mageflow.queue.wait_s"] >= 0.0

    # Log records carry the ids of the very spans, in the synchronous body, too.
    recorded = next(line for line in logs if line["event"] == "in the child")
    assert (recorded["task"], recorded["run_id"]) == ("hi-child", child["attributes"]["hatchet.workflow_run_id"])
    assert recorded["span_id"] == query["context"]["span_id"].removeprefix("0x")
    finished = [line for line in logs if line["event"] == "mageflow.task.finished"]
    assert {f"0x{line['span_id']}" for line in finished} <= {span["context"]["span_id"] for span in consumers}

    # Metrics agree.
    url = next(line["metrics_url"] for line in logs if line["event"] == "mageflow.worker.started")
    seen = samples(get(url)[2])
    assert seen.value("mageflow_task_runs_total", task="hi-flaky", outcome="retried") == 1.0
    assert seen.value("mageflow_task_runs_total", task="hi-child", outcome="succeeded") == 1.0
    assert seen.value("mageflow_tasks_enqueued_total", task="hi-child", source="direct", result="ok") == 1.0
    assert seen.total("mageflow_telemetry_errors_total") == 0.0
    assert seen.total("mageflow_telemetry_dropped_label_values_total") == 0.0

    # The instrumentor records exceptions without their text, too.
    retried = by_task["hi-flaky"][0]
    assert (retried["status"]["status_code"], retried["status"]["description"]) == ("ERROR", "ValueError")
    assert [event["attributes"] for event in retried["events"] if event["name"] == "exception"] == [
        {"exception.type": "ValueError"}
    ]

    # Inputs are in the instrumentor's own attributes, of which there was a warning, and nowhere else.
    warned = [line for line in logs if line["event"] == "mageflow.privacy.hatchet_payload_exported"]
    assert [line["not_excluded"] for line in warned] == [list(PRIVATE_ATTRIBUTES)]
    for span in spans:
        for theirs in ("hatchet.payload", "hatchet.action_payload"):
            span["attributes"].pop(theirs, None)
    assert CANARY not in json.dumps(spans)
    assert CANARY not in log_file.read_text()
