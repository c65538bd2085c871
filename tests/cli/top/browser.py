"""A real browser, Chromium without a window, driven by its own protocol."""

import asyncio
import base64
import itertools
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

__all__ = ["CHROMIUM", "Page", "open_page"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """One page, and what it has received."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.received = b""
        """Everything that came over the page's own sockets."""
        self.requested: list[str] = []
        """Every URL the page has asked for."""
        self.blocked: list[str] = []
        """Those that its policy has forbidden."""

    async def listen(self) -> None:
        async for message in self._socket:
            document = message.json()
            if document.get("id") in self._answers:
                self._answers.pop(document["id"]).set_result(document)
            parameters = document.get("params", {})
            if document.get("method") == "Network.webSocketFrameReceived":
                frame = parameters["response"]
                text = frame["payloadData"]
                self.received += base64.b64decode(text) if frame["opcode"] == 2 else text.encode()
            elif document.get("method") == "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            elif document.get("method") == "Network.loadingFailed" and parameters.get("blockedReason"):
                self.blocked.append(parameters["blockedReason"])

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        document = await asyncio.wait_for(answer, 30)
        assert "error" not in document, document
        return document["result"]

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key that writes a character, in the terminal of the page."""
        await self.evaluate("document.querySelector('textarea').focus()")
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=key, key=key)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def wait_for(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.1)

    async def picture(self) -> bytes:
        """The page as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot"))["data"])


@asynccontextmanager
async def open_page(url: str, profile: Path, *, width: int = 1400, height: int = 900) -> AsyncGenerator[Page]:
    """Open a page in a browser of its own."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}",
        f"--window-size={width},{height}", "about:blank",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220
        try:
            active = profile / "DevToolsActivePort"
            async with asyncio.timeout(60):
                while not active.exists() or not active.read_text():
                    await asyncio.sleep(0.1)
            port = active.read_text().splitlines()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    target = next(each for each in await answer.json() if each["type"] == "page")
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    for domain in ("Network", "Page", "Runtime"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.navigate", url=url)
                    yield page
                    listening.cancel()
                    await asyncio.gather(listening, return_exceptions=True)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
