"""Writes the pictures of ``mageflow dev`` and ``mageflow inspect``: what the commands print for a small shop.

Run ``poe command-pictures`` after a change of what they print, alone: it starts the development engine, a worker and
the commands. A test compares the words of the pictures with those of the commands.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

PICTURES: Final = Path(__file__).with_name("pictures")
_COLUMNS: Final = 100
_DEV_LINES: Final = 24
_LIMIT_SECONDS: Final = 120.0
_SHOP: Final = """
import asyncio
from datetime import timedelta

from hatchet_sdk import Hatchet
from mageflow import Mageflow

client = Mageflow(Hatchet())
printer = client.resource("label-printer")


@client.task(name="price-order")
async def price_order(order: dict) -> dict:
    await asyncio.sleep(0.4)
    return {"price": 12.5}


@client.task(name="book-payment", execution_timeout=timedelta(seconds=30))
@client.stagger_execution(wait_delta=timedelta(seconds=2))
async def book_payment(order: dict) -> dict:
    await asyncio.sleep(0.3)
    return {}


@client.task(name="print-label", execution_timeout=timedelta(minutes=3))
@client.exclusive(printer)
async def print_label(order: dict) -> dict:
    await asyncio.sleep(0.5)
    return {}


@client.task(name="clean-printer", execution_timeout=timedelta(minutes=3))
@client.exclusive(printer)
async def clean_printer(order: dict) -> dict:
    await asyncio.sleep(50)
    return {}


async def main() -> None:
    await clean_printer.aio_run({}, wait_for_result=False)
    chain = await client.chain([price_order, book_payment, print_label], "order")
    await chain.aio_run_no_wait({"order": 17})
    print(chain.key)


if __name__ == "__main__":
    asyncio.run(main())
"""


def picture(text: str, name: str, title: str, columns: int = _COLUMNS) -> None:
    """Write what a terminal shows for this output as an SVG.

    Args:
        text: With escape sequences of colours.
        name: Of the file, without its suffix.
        title: In the frame of the terminal.
        columns: The width of the terminal.
    """
    console = Console(record=True, width=columns, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(text))
    (PICTURES / f"{name}.svg").write_text(console.export_svg(title=title, unique_id=name), encoding="utf-8")


def _mageflow(directory: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "mageflow", *arguments]
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=directory, env=_environment(directory), capture_output=True, text=True, check=True
    ).stdout


def _environment(directory: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "XDG_STATE_HOME": str(directory),
        "FORCE_COLOR": "1",
        "COLUMNS": str(_COLUMNS),
        "TERM": "xterm-256color",
    }


def main() -> None:
    """Start the shop with ``mageflow dev`` and take both pictures."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "shop.py").write_text(_SHOP, encoding="utf-8")
        output = directory / "dev.txt"
        with output.open("wb") as file:
            dev = subprocess.Popen(
                [sys.executable, "-m", "mageflow", "dev", "shop.py"],
                cwd=directory,
                env=_environment(directory),
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            _until(lambda: "worker.started" in output.read_text("utf-8"), dev, output)
            key = _mageflow(directory, "run", "--", sys.executable, "shop.py").strip().splitlines()[-1]
            inspect = ["run", "--", sys.executable, "-m", "mageflow", "inspect", key]
            _until(lambda: _waits_for_a_lock(_mageflow(directory, *inspect, "--json")), dev, output)
            picture(_mageflow(directory, *inspect), "inspect", "mageflow inspect")
        finally:
            dev.send_signal(signal.SIGINT)
            dev.wait(30)
        lines = output.read_text("utf-8").splitlines()
        picture("\n".join(lines[:_DEV_LINES]), "dev", "mageflow dev shop.py")


def _waits_for_a_lock(text: str) -> bool:
    return any(each["kind"] == "lock" for each in json.loads(text)["waits"])


def _until(holds: Callable[[], bool], dev: "subprocess.Popen[bytes]", output: Path) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not holds():
        if dev.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"mageflow dev did not get there:\n{output.read_text('utf-8')}")
        time.sleep(0.3)


if __name__ == "__main__":
    main()
