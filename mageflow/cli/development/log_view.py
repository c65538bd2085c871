"""The log of a development worker for a person: one line per record, a colour per task, wide fields below the line.

A worker writes JSON lines. What is not JSON, such as the output of ``print``, is shown as it is.
"""

import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from mageflow.terminal import printable

__all__ = ["LogView"]

_COLOURS: Final = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")
_LEVELS: Final = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}
_PREFIX: Final = "mageflow."
_TASK_WIDTH: Final = 16
_INDENT: Final = " " * 11
_SHORT_ID: Final = 8
_QUIET_LEVELS: Final = frozenset({"debug", "info"})
_IDS: Final = {"run_id": "run", "trace_id": "trace", "signature_id": "signature", "flow_id": "flow"}
"""Long ids, by the short names under which their first characters are shown."""

_LONG_ID: Final = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")
_SDK_FAILURE: Final = "failed step run: "
"""Begin of the SDK's message about a failed attempt; the id of the attempt is its end."""

_HIDDEN: Final = frozenset(
    {"event", "level", "logger", "timestamp", "task", "step_run_id", "span_id", "trace_sampled", "exception", "stack"}
)


class LogView:
    """Prints the log of a worker.

    Args:
        console: Where it is printed. Strings are printed as text, never as markup.
        is_verbose: Whether to print the Hatchet SDK's own progress, and every field.
    """

    def __init__(self, console: Console, *, is_verbose: bool = False) -> None:
        self._console = console
        self._is_verbose = is_verbose
        self._failed: deque[str] = deque(maxlen=1000)

    def line(self, line: str) -> None:
        """Print one line of the worker's output."""
        record = _record_of(line)
        if record is None:
            if line.strip():
                self._print(Text.assemble((f"{'':9}│ ", "dim"), printable(line)))
        elif self._is_verbose or not (_is_noise(record) or self._is_repeated(record)):
            for each in self._lines_of(record):
                self._print(each)

    def note(self, text: str, style: str = "bold") -> None:
        """Print one line of the command itself."""
        self._print(Text.assemble((f"{datetime.now().astimezone():%H:%M:%S} ", "dim"), (printable(text), style)))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _is_repeated(self, record: Mapping[str, Any]) -> bool:
        """Whether it is the SDK's record of a failed attempt that mageflow has reported, with its traceback."""
        event = str(record["event"])
        if event == f"{_PREFIX}task.failed":
            self._failed.append(str(record.get("step_run_id", "")))
        return event.startswith(_SDK_FAILURE) and event.rpartition("/")[2] in self._failed

    def _lines_of(self, record: Mapping[str, Any]) -> Iterator[Text]:
        level = str(record.get("level", "info"))
        style = _LEVELS.get(level, "")
        task = str(record.get("task", "") or record.get("logger", ""))
        head = Text.assemble((f"{_clock(record.get('timestamp'))} ", "dim"))
        head.append(f"{printable(_fitted(task))} ", _colour(task) if record.get("task") else "dim")
        head.append(printable(str(record.get("event", "")).removeprefix(_PREFIX)), style or "bold")
        below: list[Text] = []
        for name, value in self._fields(record):
            field = Text.assemble((f"{printable(name)}=", "dim"), (printable(value), style))
            if not below and head.cell_len + 2 + field.cell_len <= self._console.width:
                head.append("  ").append(field)
            elif below and below[-1].cell_len + 2 + field.cell_len <= self._console.width:
                below[-1].append("  ").append(field)
            else:
                below.append(Text(_INDENT).append(field))
        yield head
        yield from below
        for name in ("exception", "stack"):
            if text := record.get(name):
                yield from (Text(_INDENT + printable(each), "red") for each in str(text).splitlines())

    def _fields(self, record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The fields of a record: what a person reads first, then shortened ids."""
        hidden = frozenset({"event", "level", "timestamp", "exception", "stack"}) if self._is_verbose else _HIDDEN
        shown = [
            (name, value) for name, value in record.items() if name not in hidden and (value != "" or self._is_verbose)
        ]
        for name, value in shown:
            is_shortened = name in _IDS and not self._is_verbose
            # The id of the worker is the same in every record of a task.
            if not is_shortened and (name != "worker" or "task" not in record or self._is_verbose):
                shorter = value if self._is_verbose else _with_short_ids(value)
                yield name, value if isinstance(value, str) else json.dumps(shorter, ensure_ascii=False)
        if not self._is_verbose:
            # A step carries the id of its flow twice.
            ids = {str(value)[:_SHORT_ID]: _IDS[name] for name, value in shown if name in _IDS and value}
            yield from ((name, value) for value, name in ids.items())


def _record_of(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None


def _with_short_ids(value: Any) -> Any:
    """The value, where the ids in its lists and dictionaries have their first characters only."""
    if isinstance(value, dict):
        return {name: _with_short_ids(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_short_ids(each) for each in value]
    return value[:_SHORT_ID] if isinstance(value, str) and _LONG_ID.fullmatch(value) else value


def _is_noise(record: Mapping[str, Any]) -> bool:
    """The SDK reports each step of a run too. Its warnings and errors are shown."""
    logger = str(record.get("logger", ""))
    return logger.partition(".")[0] == "hatchet" and record.get("level") in _QUIET_LEVELS


def _clock(timestamp: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(timestamp)).astimezone():%H:%M:%S}"
    except ValueError:
        return " " * 8


def _fitted(name: str) -> str:
    return f"{name[: _TASK_WIDTH - 1]}…" if len(name) > _TASK_WIDTH else name.ljust(_TASK_WIDTH)


def _colour(task: str) -> str:
    """The same colour for a task at each start."""
    return _COLOURS[zlib.crc32(task.encode("utf-8", "replace")) % len(_COLOURS)]
