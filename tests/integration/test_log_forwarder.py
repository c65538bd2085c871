"""Hatchet's log forwarder beside the events of mageflow that it does not forward."""

import logging
from collections.abc import Generator
from typing import Any

import pytest
from hatchet_sdk import EmptyModel
from hatchet_sdk.worker.runner.utils.capture_logs import AsyncLogSender

from mageflow.telemetry.names import events
from tests.integration.conftest import MakeClient


class CountingFormatter(logging.Formatter):
    """Keeps the message of each record that it formats."""

    def __init__(self) -> None:
        super().__init__()
        self.formatted: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        self.formatted.append(record.getMessage())
        return super().format(record)


@pytest.fixture
def formatter() -> Generator[CountingFormatter]:
    """The formatter of the first root handler: the forwarder takes it too."""
    root, handler = logging.getLogger(), logging.StreamHandler()
    level = root.level
    root.setLevel(logging.INFO)  # as `configure` does; the forwarder takes the level of its logger
    handler.setFormatter(formatter := CountingFormatter())
    root.handlers.insert(0, handler)
    yield formatter
    root.removeHandler(handler)
    root.setLevel(level)


async def test_the_line_of_an_attempt_is_formatted_once(
    make_observed: MakeClient, mageflow_worker: Any, formatter: CountingFormatter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forwarder formats what it forwards: the program's lines within a run, and no event below its level."""
    sent: list[str] = []
    publish = AsyncLogSender.publish

    def publish_and_note(self: AsyncLogSender, record: Any) -> None:
        sent.append(record.message)
        publish(self, record)

    monkeypatch.setattr(AsyncLogSender, "publish", publish_and_note)
    client = make_observed().client

    @client.task(name="log-a-line")
    async def log_a_line(_: EmptyModel) -> dict[str, int]:
        logging.getLogger("program").warning("a line of the program")
        return {}

    mageflow_worker.in_process(client, "logging", workflows=[log_a_line])
    for _ in range(2):
        await log_a_line.aio_run(EmptyModel())

    assert sent == ["a line of the program"] * 2
    assert formatter.formatted.count("a line of the program") == 4  # by the handler, and by the forwarder
    finished = [each for each in formatter.formatted if events.TASK_FINISHED.name in each]
    assert len(finished) == 2
