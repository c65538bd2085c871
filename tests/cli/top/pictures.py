"""Takes the pictures of the documentation that need a browser: its front page, and ``mageflow top --web``.

    python -m tests.cli.top.pictures

A development script. It needs Chromium, and runs the demo's worker on the local engine for the second picture.
"""

import asyncio
import functools
import http.server
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from mageflow.cli.demo import session
from mageflow.cli.demo.services import Services, start_services
from mageflow.cli.demo.shop import Order, Workload
from mageflow.testing.ports import free_port
from tests.cli.top.browser import open_page

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
        async with open_page(address, folder / "profile-site", width=1200, height=800) as page:
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


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(front_page(folder))
        with start_services(folder, print) as services:
            asyncio.run(live_view(folder, services))


if __name__ == "__main__":
    main()
