"""The log that ``mageflow dev`` prints: what is dim in a terminal, and what is not."""

import json
from collections.abc import Callable

import pytest

from mageflow.cli.console import DataConsole
from mageflow.cli.development.log_view import LogView

RECORD = {
    "event": "mageflow.task.finished", "level": "info", "timestamp": "2026-11-28T05:52:30Z", "logger": "mageflow",
    "task": "price-order", "outcome": "succeeded",
}  # fmt: skip


@pytest.mark.parametrize(
    ("show", "dim", "bright"),
    [
        (lambda view: view.line(json.dumps(RECORD)), "outcome=", ["price-order", "task.finished", "succeeded"]),
        (lambda view: view.line("printed by the program"), "│ ", ["printed by the program"]),
        (lambda view: view.note("Live view: mageflow top"), ":", ["Live view: mageflow top"]),
    ],
    ids=["record", "line", "note"],
)
def test_only_times_and_names_of_fields_are_dim(
    show: Callable[[LogView], None], dim: str, bright: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person reads has its full colour: the task, the event, values, and lines of the command itself."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    console = DataConsole(width=180)
    with console.capture() as captured:
        show(LogView(console))

    dimmed: list[str] = []
    plain: list[str] = []
    for part in captured.get().split("\x1b[")[1:]:
        codes, _, text = part.partition("m")
        (dimmed if "2" in codes.split(";")[:2] and not codes.startswith("38") else plain).append(text)
    assert any(dim in each for each in dimmed), captured.get()
    shown = " ".join(plain) + captured.get().partition("\x1b[")[0]
    assert [each for each in bright if each not in shown] == [], captured.get()


def test_ids_inside_a_field_are_short() -> None:
    """As the ids of the record itself, and empty fields are left out; ``--verbose`` shows everything."""
    run_id, trace_id = "bc5d40a0-6a47-4dee-a0b3-b862634073e5", "2c43ede741efbbe52fae465ce2573d14"
    holders = [{"task": "clean-printer", "run_id": run_id, "trace_id": trace_id, "held_s": 1.353}]
    console = DataConsole(width=180)
    for is_verbose, expected in ((False, (run_id[:8], trace_id[:8])), (True, (run_id, trace_id))):
        with console.capture() as captured:
            LogView(console, is_verbose=is_verbose).line(json.dumps(RECORD | {"resource": "", "holders": holders}))
        assert ("resource=" in captured.get()) is is_verbose
        for each in expected:
            assert f'"{each}"' in captured.get()


def test_a_failure_is_shown_once_with_its_traceback() -> None:
    """The SDK logs the failure of the last attempt again; one that mageflow has not reported stays."""
    trace = (
        'Traceback (most recent call last):\n  File "worker.py", line 9, in price_order\nZeroDivisionError: division'
    )
    failed = RECORD | {"event": "mageflow.task.failed", "level": "error", "step_run_id": "bc5d40a0", "exception": trace}
    repeated = {
        "event": "failed step run: price-order:price-order/bc5d40a0", "level": "error", "logger": "hatchet",
        "timestamp": RECORD["timestamp"], "exception": trace,
    }  # fmt: skip
    other = repeated | {"event": "failed step run: price-order:price-order/0a04d5cb"}
    shown: dict[bool, str] = {}
    for is_verbose in (False, True):
        console = DataConsole(width=180)
        with console.capture() as captured:
            view = LogView(console, is_verbose=is_verbose)
            for each in (failed, repeated, other):
                view.line(json.dumps(each))
        shown[is_verbose] = captured.get()

    assert (shown[False].count("ZeroDivisionError"), shown[True].count("ZeroDivisionError")) == (2, 3)
    assert "0a04d5cb" in shown[False]
