"""A REST interface of Hatchet that takes a connection and does not answer."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import uuid4

import pytest

from mageflow import Mageflow, TaskSignature
from mageflow.errors import DispatchError
from mageflow.hatchet import rest_limit
from mageflow.hatchet.unserved import UnservedWatch
from mageflow.interceptors import EnqueueItem, Interceptor
from mageflow.types import Dispatcher
from tests.integration.conftest import make_observed  # noqa: F401 - a fixture

CALLS: dict[str, Callable[[Dispatcher], Awaitable[Any]]] = {
    "cancel": lambda dispatcher: dispatcher.cancel([str(uuid4())]),
    "delete_scheduled": lambda dispatcher: dispatcher.delete_scheduled(f"mageflow:{{/0}}:task:{uuid4().hex}"),
    "was_replayed": lambda dispatcher: dispatcher.was_replayed(str(uuid4()), 1),
    "was_timed_out": lambda dispatcher: dispatcher.was_timed_out(str(uuid4()), 1),
    "origin": lambda dispatcher: dispatcher.origin(str(uuid4())),
}


@contextmanager
def silent_hatchet(monkeypatch: pytest.MonkeyPatch, *clients: Any) -> Generator[None]:
    """A Hatchet that takes connections of these REST clients and answers nothing. Requests end after half a second."""
    monkeypatch.setattr(rest_limit, "_LIMIT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for each in clients:
            monkeypatch.setattr(each.api_config, "_base_path", f"http://127.0.0.1:{silent.getsockname()[1]}")
        yield


@pytest.mark.parametrize("call", CALLS)
async def test_a_request_of_a_flow_ends_though_hatchet_is_silent(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    """It fails after its limit, and its thread is free again. Without one it kept a thread of the process for ever."""
    client = make_observed(mageflow_redis.url).client
    with silent_hatchet(monkeypatch, client.runs, client.scheduled):
        async with asyncio.timeout(15):
            with pytest.raises(DispatchError) as caught:
                await CALLS[call](client._flows._dispatcher)
    assert (caught.value.unanswered, caught.value.refused) == (True, False)


QUESTIONS: dict[str, Callable[[Mageflow], Awaitable[Any]]] = {
    "how an attempt ended": lambda client: client._confirmations._ending_of(str(uuid4()), 1),
    "whether one has begun": lambda client: client._confirmations._has_begun_before(str(uuid4()), 1),
    "what is scheduled": lambda client: client._flows._binder.runner.aio_unschedule(SIGNATURE),
}
SIGNATURE = TaskSignature(key=f"mageflow:{{/0}}:task:{uuid4().hex}", task_name="price")


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_of_a_worker_ends_though_hatchet_is_silent(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    monkeypatch: pytest.MonkeyPatch,
    question: str,
) -> None:
    """Each asks in a thread of the loop's pool. The worker gave up after 10 s, and the thread stayed for ever."""
    client = make_observed(mageflow_redis.url).client
    with silent_hatchet(monkeypatch, client.runs, client.scheduled):
        async with asyncio.timeout(15):
            with pytest.raises(DispatchError) as caught:
                await QUESTIONS[question](client)
    assert caught.value.unanswered


async def test_a_look_for_a_worker_ends_though_hatchet_is_silent(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that looks up runs which do not start goes on to the next one. It stayed with the first."""
    client = make_observed(mageflow_redis.url).client
    with silent_hatchet(monkeypatch, client.runs, client.workers):
        watch = UnservedWatch(client.config, client.runs, client.workers, Interceptor(), 0.01, list)
        watch.note([EnqueueItem(name, {}, run_id=str(uuid4())) for name in ("price", "ship")])
        thread = watch._thread
        assert thread is not None
        await asyncio.to_thread(thread.join, 15)
        assert not thread.is_alive()


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with a status."""

    status = 403

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - a name of the standard library


@pytest.mark.parametrize(("status", "is_refused"), [(403, True), (429, False), (500, False), (503, False)])
async def test_an_error_says_whether_hatchet_refused_or_was_away(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    is_refused: bool,
) -> None:
    """A request over REST has the same two facts as one over gRPC. They were always False."""
    client = make_observed(mageflow_redis.url).client
    monkeypatch.setattr(Refusing, "status", status)
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        monkeypatch.setattr(client.runs.api_config, "_base_path", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(DispatchError) as caught:
                await client._flows._dispatcher.cancel([str(uuid4())])
        finally:
            await asyncio.to_thread(server.shutdown)
    assert (caught.value.refused, caught.value.unanswered) == (is_refused, status == 503)
