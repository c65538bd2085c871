"""The workers that are the limits: the raw calls by hand, and two scripts that do nothing."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from hatchet_sdk import Hatchet

from mageflow import Mageflow
from mageflow.testing import EmbeddedValkey
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks.bench_worker import BEFORE, PREFIXES, Side, report
from tests.benchmarks.worker_sides import SCRIPTS, Message, body

pytestmark = pytest.mark.slow


async def test_the_two_scripts_have_the_arguments_of_a_signed_run(
    mageflow_worker: Any, mageflow_redis: EmbeddedValkey
) -> None:
    """As many keys and arguments as a worker sends, each of about the same length."""
    client: Any = Mageflow(Hatchet(), mageflow_redis.url)
    task = client.task(name="bench-mageflow", input_validator=Message)(body)
    mageflow_worker.in_process(client, "bench-mageflow", workflows=[task])
    signature, again = await client.sign(task, x=1), await client.sign(task, x=1)
    assert await signature.aio_run() == {"x": 1}  # the server learns the scripts

    sent: list[list[str]] = []
    async with redis.asyncio.Redis.from_url(mageflow_redis.url) as server, server.monitor() as monitor:
        running = asyncio.create_task(again.aio_run())
        while len(sent) < len(SCRIPTS):
            command = (await monitor.next_command())["command"]
            if command.startswith("EVALSHA ") and again.key in command:
                sent.append(command.split(" "))
        await running

    for words, (keys, given) in zip(sent, SCRIPTS, strict=True):
        assert int(words[2]) == len(keys)
        text = " ".join(["EVALSHA", "x" * 40, str(len(keys)), *keys, *given])
        assert len(words) == len(text.split(" "))
        assert len(" ".join(words)) == pytest.approx(len(text), rel=0.1)


def test_the_limits_run_as_workers_of_the_bare_sdk(root: Path) -> None:
    """One writes the line of mageflow in place of those of the SDK, which the benchmark checks; one uses Redis."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_worker", "--json", "--sides", "raw", "scripts"]
    sizes = ["--rounds", "1", "--runs", "5", "--singles", "2", "--imports", "0"]

    done = subprocess.run([*command, *sizes], cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    measured = {row["measure"] for row in json.loads(done.stdout)["rows"]}
    assert measured == {
        "the raw calls by hand, bulk: worker CPU per run, ms",
        "the raw calls by hand, bulk: runs per second",
        "two trivial scripts, single run: worker CPU, ms",
        "two trivial scripts, single run: median round trip, ms",
    }


def _results() -> dict[str, Side]:
    bulk, single, signed = "bulk: worker CPU per run, ms", "single run: worker CPU, ms", "signed run: worker CPU, ms"
    others = ["bulk: runs per second", "single run: median round trip, ms", "signed run: median round trip, ms"]
    others += ["import and make a client: CPU, s", "import and make a client with a Redis: CPU, s"]
    found = {name: Side() for name in ("bare", *PREFIXES, f"{BEFORE}mageflow", f"{BEFORE}metrics")}
    for name, values in {
        "bare": {bulk: 3.0, single: 4.0},
        "raw": {bulk: 3.2},
        "scripts": {single: 4.4},
        "metrics": {bulk: 3.1},
        "mageflow": {bulk: 3.36, single: 4.2, signed: 5.5},
        f"{BEFORE}metrics": {bulk: 3.3},
        f"{BEFORE}mageflow": {bulk: 3.84, single: 4.4, signed: 6.6},
    }.items():
        for measure, value in values.items():
            found[name].add(measure, value)
        if name in ("bare", "mageflow", f"{BEFORE}mageflow"):
            for measure in others:
                found[name].add(measure, 1.0)
    return found


def test_mageflow_stands_over_its_limits() -> None:
    """Another package stands over the same limits: they have nothing of it."""
    own = {name: value for name, _, value in benchmarks.worker_rows({"rows": report(_results())})}
    before = {name: value for name, _, value in benchmarks.worker_rows({"rows": report(_results(), BEFORE)})}

    assert own[benchmarks.ADDED] == pytest.approx(360)
    assert own[benchmarks.RAW_ADDED] == before[benchmarks.RAW_ADDED] == pytest.approx(200)
    assert own[benchmarks.OVER_RAW] == pytest.approx(1.05)
    assert before[benchmarks.OVER_RAW] == pytest.approx(1.2)
    assert own[benchmarks.SCRIPTS] == before[benchmarks.SCRIPTS] == pytest.approx(1.1)
    assert own[benchmarks.OVER_SCRIPTS] == pytest.approx(1.25)
    assert before[benchmarks.OVER_SCRIPTS] == pytest.approx(1.5)
    assert before[benchmarks.METRICS_ADDED] == pytest.approx(300)
