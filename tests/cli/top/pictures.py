"""Takes the pictures of the live view in the documentation, and that of its front page.

    python -m tests.cli.top.pictures

A development script. It needs Chromium, and runs the demo's worker on the local engine. Names after the command choose
from ``tabs``, ``browser`` and ``front-page``.
"""

import asyncio
import functools
import http.server
import itertools
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from textual.widgets import OptionList

from mageflow.cli.demo import session
from mageflow.cli.demo.services import Services, start_services
from mageflow.cli.demo.shop import Order, Workload, send_traffic
from mageflow.cli.demo.shop.workload import CHAIN
from mageflow.cli.top import open_reader
from mageflow.cli.top.sources import Snapshot
from mageflow.cli.top.views import LiveView
from mageflow.testing.ports import free_port
from tests.cli.top.browser import open_page

SIZE = (132, 42)
RECENT_SECONDS = 20.0
RATES_SECONDS = 20.0
ROOT = Path(__file__).parents[3]
OUT = ROOT / "docs/pictures"


@contextmanager
def site(folder: Path) -> Generator[str]:
    """The address of the documentation site, built now."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


async def front_page(folder: Path) -> None:
    """The first page of the site."""
    with site(folder / "site") as address:
        async with open_page(address, folder / "profile-site", width=1400, height=900) as page:
            for _ in range(600):
                if await page.evaluate("document.readyState") == "complete" and await page.evaluate("!!document.title"):
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(2)  # the theme's own script lays out the navigation
            (OUT / "front-page.png").write_bytes(await page.picture())


async def work_for(work: Workload, seconds: float) -> None:
    """Give the view something to show."""
    until = asyncio.get_running_loop().time() + seconds
    number = 0
    while asyncio.get_running_loop().time() < until:
        number += 1
        await work.run(work.shop.charge, Order(number=number, seconds=1.5))
        if number % 15 == 1:
            await work.deadlock(1000 + number, pay_seconds=2, pack_seconds=6)
        await asyncio.sleep(0.4)


async def live_view(folder: Path, services: Services) -> None:
    """The live view in a browser, beside the demo's worker."""
    port = free_port()
    command = [sys.executable, "-m", "mageflow", "top", "--web", "--port", str(port)]
    command += ["--metrics", services.metrics_url, "--redis-url", services.valkey.url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as view:  # noqa: ASYNC220 - it starts at once
        try:
            async with session.open_workload(services, registry=CollectorRegistry()) as work:
                working = asyncio.create_task(work_for(work, 60))
                await asyncio.sleep(5)
                address = f"http://127.0.0.1:{port}"
                async with open_page(address, folder / "profile-top", width=1200, height=700) as page:
                    await page.wait_for(lambda: b"held by" in page.received and b"waits" in page.received)
                    await asyncio.sleep(1)
                    (OUT / "live-view-browser.png").write_bytes(await page.picture())
                await working
        finally:
            view.terminate()


async def tabs(services: Services) -> None:
    """The tabs of the live view, with the traffic of the demo."""
    numbers = itertools.count(10_000)
    async with session.open_workload(services, registry=CollectorRegistry()) as work:
        traffic = asyncio.create_task(send_traffic(work))
        try:
            async with (
                open_reader(services.valkey.url, None, (services.metrics_url,)) as reader,
                (view := LiveView(reader, 1.0)).run_test(size=SIZE) as pilot,
            ):
                await asyncio.sleep(RATES_SECONDS)
                while view.snapshot is None or not _has_everything(view.snapshot):
                    await work.run_many(work.shop.sync, [Order(number=n, seconds=0.4) for n in range(3)])
                    await work.deadlock(next(numbers), pay_seconds=0.3, pack_seconds=3)
                    await asyncio.sleep(1.5)
                await pilot.pause(0.3)  # a panel that has grown is laid out again
                _save(view, "overview")
                await pilot.press("2")
                await asyncio.sleep(2)
                _save(view, "flows")
                await pilot.press("4")
                await asyncio.sleep(2)
                traces = view.query_one(OptionList)
                names = [str(traces.get_option_at_index(number).prompt) for number in range(traces.option_count)]
                traces.highlighted = next(number for number, name in enumerate(names) if CHAIN in name)
                await asyncio.sleep(1)
                _save(view, "traces")
        finally:
            traffic.cancel()
            await asyncio.gather(traffic, return_exceptions=True)


def _has_everything(seen: Snapshot) -> bool:
    """Whether the first tab shows a wait for a lock, attempts that sleep, and a deadlock just broken."""
    is_recent = bool(seen.deadlocks) and seen.at - seen.deadlocks[0].at < RECENT_SECONDS
    return is_recent and len(seen.sleepers) > 1 and seen.locks is not None and bool(seen.locks.waiters)


def _save(view: LiveView, name: str) -> None:
    (OUT / f"live-view-{name}.svg").write_text(view.export_screenshot(title="mageflow top"), encoding="utf-8")


def main() -> None:
    """Take the pictures that are named, or all."""
    wanted = set(sys.argv[1:]) or {"tabs", "browser", "front-page"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if wanted & {"tabs", "browser"}:
            with start_services(folder, print) as services:
                if "tabs" in wanted:
                    asyncio.run(tabs(services))
                if "browser" in wanted:
                    asyncio.run(live_view(folder, services))
        if "front-page" in wanted:  # last: it shows a picture of the live view
            asyncio.run(front_page(folder))


if __name__ == "__main__":
    main()
