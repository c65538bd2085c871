"""Flame graphs of a worker: ``python -m tests.benchmarks --flame DIR``. Needs py-spy (the extra ``peers``).

py-spy reads the stacks of a running worker from outside, so the worker runs at its own speed. For each kind of run DIR
gets the collapsed stacks (``.txt``, which https://www.speedscope.app opens) and a picture (``.svg``).
"""

import asyncio
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mageflow.engine import LocalEngine
from mageflow.testing import EmbeddedValkey, WorkerProcess
from tests.benchmarks.worker_sides import WORKER, Message, make

KINDS: Final = {"bulk-bare": "bare", "bulk": "mageflow", "signed": "mageflow"}
"""The runs that are recorded, and the side of ``worker_sides`` that runs them."""
TITLES: Final = {
    "bulk-bare": "Runs in bulk, the bare SDK",
    "bulk": "Runs in bulk, mageflow with spans, logs and metrics",
    "signed": "Signed runs, mageflow with spans, logs and metrics",
}
WIDTH, ROW, LETTER = 1200, 17, 6.4
COLOURS: Final = {
    "mageflow": "#f2a65a",
    "hatchet_sdk": "#7aa6d8",
    "opentelemetry": "#8fc99a",
    "prometheus_client": "#d98b8b",
    "structlog": "#c3a5d8",
    "redis": "#d8c87a",
}
LEAST_SHARE: Final = 0.002
"""Frames with less than this share of the time are not drawn."""

WAITS: Final = (
    "EpollSelector.select (",
    "_PollLikeSelector.select (",
    "Condition.wait (",
    "_worker (concurrent/",
    "Connection._recv (",
)
"""Where a thread waits: py-spy does not see that while it leaves the worker running."""
SHORT: Final = {"trace": "opentelemetry", "attributes": "opentelemetry", "context": "opentelemetry"}
"""Folders that py-spy names without the package they are in."""

Stacks = Mapping[tuple[str, ...], int]
"""How often each stack was seen, by its frames from the outermost on."""


def frame_name(frame: str) -> str:
    """A frame of py-spy, ``function (file)``, without the folders of this machine."""
    name, _, file = frame.partition(" (")
    file = re.sub(r"^.*(?:site-packages|lib-dynload|python3\.\d+)/", "", file.rstrip(")").partition(":")[0])
    _, is_ours, inside = file.rpartition("/mageflow/")
    if file.startswith("/"):
        file = f"mageflow/{inside}" if is_ours else file.rpartition("/")[2]
    return f"{name} ({file})" if file else name


def parse(text: str) -> Stacks:
    """The collapsed stacks of py-spy without those that wait; those that only differ in lines are one."""
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = tuple(frame_name(each) for each in stack.split(";"))
        if not frames[-1].startswith(WAITS):
            found[frames] += int(count)
    return found


def collapsed(stacks: Stacks) -> str:
    """The stacks as text, one a line."""
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(stacks.items()))


def package(frame: str) -> str:
    """The first folder of the file of a frame; modules of Python itself are one package."""
    file = frame.rpartition(" (")[2].rstrip(")")
    first = file.partition("/")[0]
    first = SHORT.get(first, first)
    return first if "/" in file and first not in {"asyncio", "concurrent", "json", "logging"} else "Python"


def by_package(stacks: Stacks) -> dict[str, float]:
    """The share of the time in code of each package itself, in percent, most first."""
    total = sum(stacks.values())
    own: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[package(stack[-1])] += count
    return {name: count / total * 100 for name, count in own.most_common()}


def by_function(stacks: Stacks) -> dict[str, float]:
    """The share of the time in each function itself, in percent, most first."""
    total = sum(stacks.values())
    own: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
    return {name: count / total * 100 for name, count in own.most_common()}


def table(recorded: Mapping[str, Stacks], rows: int = 15) -> str:
    """The functions that take most time themselves, of all kinds of run beside each other."""
    shares = {kind: by_function(stacks) for kind, stacks in recorded.items()}
    most = sorted({name for each in shares.values() for name in each}, key=lambda name: -_most(shares, name))[:rows]
    lines = [f"| function | {' | '.join(shares)} |", f"|---|{'---|' * len(shares)}"]
    for name in most:
        cells = [f"{each.get(name, 0):.1f} %" for each in shares.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _most(shares: Mapping[str, Mapping[str, float]], name: str) -> float:
    return max(each.get(name, 0) for each in shares.values())


def svg(stacks: Stacks, title: str) -> str:
    """A flame graph: time from left to right, callers above what they call."""
    total = sum(stacks.values())
    boxes: list[str] = []
    deepest = 0

    def draw(rows: list[tuple[tuple[str, ...], int]], depth: int, left: float) -> None:
        nonlocal deepest
        groups: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for stack, count in rows:
            if len(stack) > depth:
                groups.setdefault(stack[depth], []).append((stack, count))
        for frame, inside in groups.items():
            share = sum(count for _, count in inside) / total
            if share >= LEAST_SHARE:
                deepest = max(deepest, depth)
                boxes.append(_box(frame, depth, left, share))
                draw(inside, depth + 1, left)
            left += share * WIDTH

    draw(sorted(stacks.items()), 0, 0.0)
    height = (deepest + 3) * ROW
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="11"><desc>python -m tests.benchmarks --flame DIR</desc>'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/><text x="4" y="13">{html.escape(title)}</text>'
    )
    return f"{head}\n" + "\n".join(boxes) + "\n</svg>\n"


def _box(frame: str, depth: int, left: float, share: float) -> str:
    width, top = share * WIDTH, (depth + 1.5) * ROW
    colour = COLOURS.get(package(frame), "#d5d5d5")
    shown = frame.partition(" (")[0][: int((width - 4) / LETTER)] if width > 4 * LETTER else ""
    label = f'<text x="{left + 2:.1f}" y="{top + 12:.1f}">{html.escape(shown)}</text>' if shown else ""
    return (
        f'<g><title>{html.escape(frame)}: {share * 100:.1f} %</title><rect x="{left:.1f}" y="{top:.1f}" '
        f'width="{max(width - 0.5, 0.3):.1f}" height="{ROW - 1}" fill="{colour}"/>{label}</g>'
    )


def _py_spy() -> str:
    """The program: of this environment, which need not be activated, or of the PATH."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if (program := shutil.which("py-spy", path=places)) is None:
        raise SystemExit("py-spy is missing: pip install -e '.[test,peers]'")
    return program


async def record(kind: str, seconds: int, engine: LocalEngine, redis_url: str, folder: Path) -> Stacks:
    """The stacks of a worker that has as many runs as it can take."""
    side = KINDS[kind]
    client, task = make(side, (folder / "client.log").open("a"), redis_url)
    worker = WorkerProcess(engine, WORKER, side, redis_url, output=folder / f"{kind}.log")
    await worker.aio_start(300)
    raw = folder / f"{kind}.raw"
    command: list[Any] = [_py_spy(), "record", "--pid", worker.pid, "--duration", seconds, "--rate", 200]
    command += ["--format", "raw", "--function", "--nonblocking", "--output", raw]
    try:
        signature = await client.sign(task, x=1) if kind == "signed" else None

        async def runs() -> None:
            if signature is None:
                await task.aio_run_many([task.create_bulk_run_item(Message(x=index)) for index in range(200)])
            else:
                await asyncio.gather(*(signature.aio_run() for _ in range(20)))

        await runs()  # connections, caches, scripts
        spy = await asyncio.create_subprocess_exec(
            *map(str, command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        while spy.returncode is None:
            await runs()
        if spy.returncode:
            assert spy.stderr is not None
            raise AssertionError((await spy.stderr.read()).decode())
    finally:
        await worker.aio_stop()
    return parse(raw.read_text())


def main(folder: Path, seconds: int) -> dict[str, Stacks]:
    """Record all kinds of run into the folder."""
    _py_spy()
    folder.mkdir(parents=True, exist_ok=True)
    recorded: dict[str, Stacks] = {}
    with LocalEngine() as engine, EmbeddedValkey() as server, tempfile.TemporaryDirectory() as logs:
        os.environ.update(engine.environment())
        for kind in KINDS:
            recorded[kind] = stacks = asyncio.run(record(kind, seconds, engine, server.url, Path(logs)))
            (folder / f"{kind}.txt").write_text(collapsed(stacks))
            (folder / f"{kind}.svg").write_text(svg(stacks, TITLES[kind]))
    return recorded
