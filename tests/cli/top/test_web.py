"""``mageflow top --web``: the view in a real browser, and closed to every other page."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.testing import EmbeddedValkey
from mageflow.testing.ports import free_port
from tests.cli.top.browser import CHROMIUM, open_page
from tests.started_program import StartedProgram

pytestmark = pytest.mark.slow


@asynccontextmanager
async def served(redis_url: str) -> AsyncGenerator[str]:
    """The address of a view of this Redis. It has ended with status 0 afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "mageflow", "top", "--web", "--port", str(port), "--redis-url", redis_url]
    environment = {**os.environ, "MAGEFLOW_METRICS_PORT": "1", "MAGEFLOW_METRICS_PORT_SPAN": "1"}
    with StartedProgram(command, env=environment, merged=True) as run:
        assert await asyncio.to_thread(run.line) == f"http://127.0.0.1:{port} (Ctrl-C ends it)\n"
        await run.listens(port)  # it prints its address a moment before it listens
        yield f"http://127.0.0.1:{port}"
        run.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(run.ended) == (0, "", "")


async def hold(redis_url: str, lock: str, task: str) -> None:
    port = RedisPort(redis_url)
    owner = LockOwner(task=task, run_id=task, task_run_id=task, attempt=1)
    claim = LockClaim(
        request_id=f"q-{lock}", attempt_id=f"{task}:1", session_id=f"s-{lock}", session_is_open=False,
        resources=(ResourceKey(lock, ""),), owner=owner, lease_seconds=120, wake_id="w",
    )  # fmt: skip
    await LockStore(port, Keys("mageflow", "")).acquire(claim)
    await port.aclose()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
async def test_a_browser_shows_what_redis_has(mageflow_redis: EmbeddedValkey, tmp_path: Path):
    """It draws the view, follows changes, takes keys, and loads nothing from elsewhere."""
    await hold(mageflow_redis.url, "account", "order.pay")
    async with served(mageflow_redis.url) as address, open_page(address, tmp_path / "profile") as page:
        await page.wait_for(lambda: b"order.pay" in page.received)
        await hold(mageflow_redis.url, "stock", "order.pack")
        await page.wait_for(lambda: b"order.pack" in page.received)
        await page.press("2")
        await page.wait_for(lambda: b"no flow runs" in page.received)
        assert "-first-byte" in await page.evaluate("document.body.className")
        foreign = [url for url in page.requested if not url.startswith((address, "data:", "about:"))]
        assert len(page.blocked) == len(foreign), (page.blocked, foreign)  # requested by the page, and forbidden
        assert (await page.picture()).startswith(b"\x89PNG")


async def test_other_pages_and_names_are_refused(mageflow_redis: EmbeddedValkey):
    """No page of another origin reaches the socket, and no other name of this address is answered."""
    async with served(mageflow_redis.url) as address, aiohttp.ClientSession() as session:
        port = address.rpartition(":")[2]
        for path, headers in (
            ("/", {"Host": f"evil.example:{port}"}),
            ("/ws", {"Origin": "http://evil.example"}),
            ("/ws", {"Origin": "http://localhost:3000"}),
            ("/ws", {"Origin": "null"}),
        ):
            async with session.get(address + path, headers=headers) as answer:
                assert answer.status == 403, (path, headers)
        async with session.get(f"http://localhost:{port}/", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, f"{address}/")
        async with session.get(address) as answer:
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_a_taken_port_is_one_line():
    """Status 2, without an address that is not served."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "mageflow", "top", "--web", "--port", str(port)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"mageflow: port {port} on 127.0.0.1 cannot be used (Address already in use)")
    assert run.stderr.count("\n") == 1
