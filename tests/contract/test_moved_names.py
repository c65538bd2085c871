"""A newer SDK whose inside has moved: a copy of the installed one in which the private names have other names."""

import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import hatchet_sdk
import pytest

from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey

pytestmark = pytest.mark.slow

OF_ATTEMPTS = ("_action", "_set_cancellation_flag", "_dispatcher_client", "_workflow_input")
"""What is used when an attempt begins, long after its task was declared."""

MOVED = ("_unpack_dependencies_with_cleanup", "_lifespan", "_event_queue", "_slot_config", "_action_registry")

OF_DECLARATIONS = ("_client", "_config", "_output_validator", "_task")
"""What a program cannot declare a task without: found by its type."""


@pytest.fixture(
    params=[MOVED, OF_ATTEMPTS, OF_DECLARATIONS], ids=["installed", "of attempts", "of declarations"], scope="module"
)
def moved_sdk(tmp_path_factory: pytest.TempPathFactory, request: Any) -> Path:
    """A folder with the copy, and with the bytecode of the files that stay as they are: all of it takes two seconds."""
    folder = tmp_path_factory.mktemp("moved")
    copy = shutil.copytree(Path(hatchet_sdk.__file__).parent, folder / "hatchet_sdk")
    pattern = re.compile(rf"\b({'|'.join(request.param)})\b")
    for file in copy.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        if pattern.search(text):
            file.write_text(pattern.sub(r"_moved\1", text), encoding="utf-8")
            py_compile.compile(str(file), doraise=True)
    return folder


async def test_tasks_run_and_what_is_missing_is_logged_once_and_counted(
    mageflow_engine: LocalEngine, mageflow_redis: EmbeddedValkey, mageflow_worker: Any, moved_sdk: Path, request: Any
) -> None:
    """Locks are refused where attempts have no hook: a body without its locks must not run."""
    path = os.pathsep.join([str(moved_sdk), os.environ.get("PYTHONPATH", "")])
    worker = mageflow_worker(
        Path(__file__).with_name("moved_worker.py"),
        name="moved",
        environment={"PYTHONPATH": path, "MAGEFLOW_REDIS_URL": mageflow_redis.url},
    )
    stubs: Any = mageflow_engine.client().stubs
    found = [
        await stubs.task(name=name, input_validator=dict[str, Any], output_validator=dict[str, Any]).aio_run(
            {"number": 1}
        )
        for name in ("moved-async", "moved-sync", "moved-parent")
    ]
    ended = await stubs.workflow(name="moved-both", input_validator=dict[str, Any]).aio_run({"number": 1})
    assert ended == {"moved-first": {"number": 4}}
    assert found[0] == {"number": 2}
    assert found[1]["number"] == 3
    group = request.node.callspec.params["moved_sdk"]
    has_attempts = group is OF_DECLARATIONS
    assert found[1]["errors"] >= {MOVED: 3, OF_ATTEMPTS: 1, OF_DECLARATIONS: 1}[group]
    # Runs are sent through the observed client under every name; those of the other groups are not counted.
    assert found[2] == {"signed": True, "sent": 1, "runs": 2 if has_attempts else 0}
    output = worker.output()
    # The listener's process imports the program too.
    assert 1 <= output.count("it is found by its type" if has_attempts else "attempts have no telemetry") <= 2
    assert output.count("serves no metrics") == int(group is MOVED)
    assert ("refused: hatchet-sdk" in output) is not has_attempts


def test_the_doctor_names_what_has_moved(moved_sdk: Path, request: Any) -> None:
    """With what to do, and no failure: tasks run."""
    path = os.pathsep.join([str(moved_sdk), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "mageflow", "doctor", "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})
    findings = [each for each in json.loads(shown.stdout)["findings"] if "has moved names" in each["statement"]]
    assert [each["level"] for each in findings] == ["warning"]
    missing = set(re.findall(r"\.(_\w+)", findings[0]["statement"]))
    assert missing == set(request.node.callspec.params["moved_sdk"])
