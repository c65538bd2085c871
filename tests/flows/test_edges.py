"""Rare flows: short TTLs, unusual characters, huge numbers of runs of one signature."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.signatures import RunIdentity, Status
from mageflow.store import AttemptOutcome, Keys, Store
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.conftest import stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker


async def echo(message: dict[str, Any]) -> Any:
    return message


async def test_a_flow_that_lives_shorter_than_the_check_is_kept_alive(store: Store, hatchet: FakeHatchet) -> None:
    """Reconcilers refresh it in time, so a task function may run for longer than the TTL."""
    settings = Settings(chain_ttl_active_seconds=1, reconcile_grace_seconds=5, reconcile_check_seconds=30)
    flows = Flows(Store(store.port, store.keys, settings), hatchet, hatchet, settings)
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)
    run = hatchet.queue.popleft()
    run.state, run.attempt = "running", 1
    identity = RunIdentity(run.id, "step", "worker", 1, run.request.dedupe_key)
    await admit(flows, run.request.signature_key, identity)
    reconciler, loop = flows.reconciler(), asyncio.get_running_loop()
    until = loop.time() + 2.5
    while loop.time() < until:
        await reconciler.sweep()
        await asyncio.sleep(0.05)
    assert (await flows.settle(run.request.signature_key, identity, AttemptOutcome("succeeded"))).verdict == "settled"
    await stop(flows)


@pytest.fixture
async def oddly_named(store: Store, hatchet: FakeHatchet) -> AsyncIterator[Flows]:
    """Flows of a namespace with characters that have a meaning in Redis Cluster and in keys of mageflow."""
    keys = Keys("mageflow", "größe {x}/#1: 🪓_")
    flows = Flows(Store(store.port, keys, Settings()), hatchet, hatchet, Settings())
    yield flows
    await stop(flows)


async def test_any_character_may_be_anywhere(oddly_named: Flows, hatchet: FakeHatchet) -> None:
    """Names, messages, results and reasons are read as they were written."""
    text = 'ß🪓 "\\" {}#/: \u2028 \x7f \ud83e\udd84'.encode("utf-16", "surrogatepass").decode("utf-16")
    task = "größe {1}/#: 🪓"
    step = await oddly_named.creation.sign(
        task, task_identifiers={text: text}, bind={text: text}, success_callbacks=[task]
    )
    chain = await oddly_named.creation.chain([step, task], name=text)
    await chain.suspend(by=text, why=text)
    await oddly_named.start(chain, {text: text})
    await chain.resume(by=text, why=text)
    await FakeWorker(hatchet, oddly_named, {task: echo}).drain()
    assert await oddly_named.wait(chain.key) == {"mageflow_results": {text: text}}
    loaded = await oddly_named.load(chain.key)
    assert (loaded.name, loaded.history[1].by, loaded.history[1].why) == (text, text, text)
    assert (await oddly_named.load(chain.steps[0])).task_identifiers == {text: text}
    assert hatchet.by_task() == {task: 3}


async def test_a_lone_surrogate_survives(flows: Flows, hatchet: FakeHatchet) -> None:
    """JSON may hold half a character, and a task may return it."""
    chain = await flows.creation.chain(["one", "two"])
    await flows.start(chain)

    async def half(message: dict[str, Any]) -> Any:
        return {"half": "\ud83e"}

    await FakeWorker(hatchet, flows, {"one": half, "two": echo}).drain()
    assert await flows.wait(chain.key) == {"mageflow_results": {"half": "\ud83e"}}


async def test_hundreds_of_held_runs_of_one_signature_are_resumed(
    flows: Flows, hatchet: FakeHatchet, store: Store
) -> None:
    """Each with its own message, once, and at a cost that does not grow with their number."""
    count = 300
    signature = await flows.creation.sign("one")
    await signature.suspend()
    working = FakeWorker(hatchet, flows, {"one": echo})
    for index in range(count):
        message = json.dumps({"n": index})
        await hatchet.dispatch([DispatchRun("one", message, signature.key, flows.new_run_key(signature))])
    await working.drain()
    assert working.skipped == {"suspended": count}
    await store.port.command("CONFIG", "RESETSTAT")
    await signature.resume()
    await working.drain()
    outputs = [json.loads(run.output or "{}").get("n") for run in hatchet.runs.values() if run.state == "completed"]
    assert outputs == list(range(count))
    assert (await flows.load(signature.key)).status is Status.DONE
    assert await store.port.command("HLEN", f"{signature.key}:members") <= 2 * count
    stats = await store.port.command("INFO", "commandstats")
    # Each script reads its record once; what reads all runs as well must be rare.
    assert _calls(stats, "hgetall") < _calls(stats, "evalsha") * 1.05


def _calls(stats: Any, command: str) -> int:
    if isinstance(stats, dict):
        return int(stats[f"cmdstat_{command}"]["calls"])
    (line,) = [each for each in stats.splitlines() if each.startswith(f"cmdstat_{command}:")]
    return int(dict(pair.split("=") for pair in line.partition(":")[2].split(","))["calls"])
