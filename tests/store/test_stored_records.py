"""Records that older code has stored are read and continued for ever."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from mageflow.config import Settings
from mageflow.signatures import FORMAT_VERSION, ChainSignature, Status, SwarmSignature, TaskSignature
from mageflow.store import Keys, describe_record, find_records
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.flows.conftest import echo
from tests.store.stored_records import FIXTURES, NAMESPACE, SCENARIOS, Stage, identity, read_fixture


@pytest.fixture
async def stage(valkey: EmbeddedValkey) -> AsyncIterator[Stage]:
    """The parts that read and write, over an empty server."""
    stage = Stage.open(valkey.url)
    yield stage
    await stage.aclose()


VERSIONS = sorted(int(folder.name.removeprefix("format_")) for folder in FIXTURES.glob("format_*"))


def test_this_version_has_a_fixture_for_every_scenario() -> None:
    """Written by ``python -m tests.store.stored_records`` when the version was raised."""
    found = {path.stem for path in (FIXTURES / f"format_{FORMAT_VERSION}").glob("*.json")}
    assert found == set(SCENARIOS)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_pending_chain_runs_to_its_end(stage: Stage, version: int) -> None:
    """Bound values, the message, results and callbacks arrive as the release that stored it meant them."""
    key = await read_fixture(stage, version, "pending_chain")
    chain = await stage.flows.load(key)
    assert isinstance(chain, ChainSignature)
    assert (chain.status, chain.name, len(chain.steps), chain.kwargs) == (
        Status.PENDING,
        "order",
        3,
        {"currency": "EUR"},
    )
    await stage.flows.start(key, {"order": 17})
    await stage.worker(price=echo, pack=echo, ship=echo, note=echo, receipt=echo).drain()
    assert (await stage.flows.load(key)).status is Status.DONE
    first = {"currency": "EUR", "order": 17}
    second = {"currency": "EUR", "fragile": True, "mageflow_results": first}
    third = {"currency": "EUR", "mageflow_results": second}
    assert [stage.hatchet.inputs(task) for task in ("price", "pack", "ship")] == [[first], [second], [third]]
    assert stage.hatchet.inputs("note") == [{"mageflow_results": second}]
    assert stage.hatchet.inputs("receipt") == [{"mageflow_results": third}]
    assert await stage.flows.wait(key) == third


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_half_done_swarm_goes_on(stage: Stage, version: int) -> None:
    """The running items end, the last one starts, and the callback receives all results in order."""
    key = await read_fixture(stage, version, "half_done_swarm")
    swarm = await stage.flows.load(key)
    assert isinstance(swarm, SwarmSignature)
    assert (swarm.pending, swarm.running, swarm.succeeded, swarm.config.max_concurrency) == (1, 2, 2, 2)
    for run in stage.hatchet.runs.values():
        if run.state == "running":
            run.attempt = 0  # the same attempt, on another worker
            stage.hatchet.queue.append(run)
    assert len(stage.hatchet.queue) == 2
    await stage.worker(price=echo, report=echo).drain()
    assert (await stage.flows.load(key)).status is Status.DONE
    assert stage.hatchet.by_task() == {"price": 5, "report": 1}
    assert stage.hatchet.inputs("report") == [{"mageflow_results": [{"currency": "EUR"}] * 5}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_suspended_signature_resumes_with_its_input(stage: Stage, version: int) -> None:
    """The held run is sent again, and its callback runs with the result."""
    key = await read_fixture(stage, version, "suspended_signature")
    signature = await stage.flows.load(key)
    assert isinstance(signature, TaskSignature)
    assert (signature.status, signature.history[-1].by, signature.history[-1].why) == (
        Status.SUSPENDED,
        "ana",
        "prices change",
    )
    assert await signature.resume() is Status.PENDING
    await stage.worker(price=echo, note=echo).drain()
    assert (await stage.flows.load(key)).status is Status.DONE
    assert stage.hatchet.inputs("note") == [{"mageflow_results": {"order": 17}}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_finished_chain_is_read_whole(stage: Stage, version: int) -> None:
    """Its result, its steps, its callbacks and its history; a replayed step returns its stored result."""
    key = await read_fixture(stage, version, "finished_chain")
    assert await stage.flows.wait(key) == {"mageflow_results": {"order": 17}}
    described = await describe_record(stage.port, Keys.of(key), key)
    assert [(str(each.path), each.role, each.task, each.status) for each in described.members] == [
        ("0", "step", "price", "done"),
        ("1", "step", "ship", "done"),
        ("1.s0", "success callback", "note", "done"),
        (".s0", "success callback", "receipt", "done"),
        (".e0", "error callback", "apology", "pending"),
    ]
    assert [entry.status for entry in described.signature.history] == ["pending", "active", "done"]
    assert described.signature.history[1].by == "ana"
    assert described.ended_at is not None
    assert (described.unsent, described.live, described.held) == (0, 0, 0)
    first = next(run for run in stage.hatchet.runs.values() if run.request.task_name == "price")
    replayed = await admit(stage.flows, first.request.signature_key, identity(first))
    assert (replayed.verdict, json.loads(replayed.result_json or "")) == ("replay", {"order": 17})
    [found] = await find_records(stage.port, Settings(), NAMESPACE, stage.store.keys.parse(key).id)
    assert found == key


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_failed_chain_runs_its_error_callback(stage: Stage, version: int) -> None:
    """A reconciler sends the callback again; it receives the stored error and the input that failed."""
    key = await read_fixture(stage, version, "failed_chain")
    chain = await stage.flows.load(key)
    assert (chain.status, chain.last_error and chain.last_error.type) == (Status.FAILED, "ValueError")
    callback = next(run for run in stage.hatchet.runs.values() if run.request.task_name == "apology")
    stage.hatchet.queue.append(callback)
    await stage.worker(apology=echo).drain()
    [received] = stage.hatchet.inputs("apology")
    assert received["mageflow_error"]["message"] == "no carrier for {'mageflow_results': {'order': 17}}"
    assert (await stage.flows.load(f"{key}#.e0")).status is Status.DONE


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_nested_swarm_resumes_with_its_chain(stage: Stage, version: int) -> None:
    """The suspended chain and its swarm go on, and the chain's last step receives the swarm's results."""
    key = await read_fixture(stage, version, "nested_swarm")
    chain = await stage.flows.load(key)
    assert chain.status is Status.SUSPENDED
    for run in stage.hatchet.runs.values():
        if run.state == "running":
            run.attempt = 0
            stage.hatchet.queue.append(run)
    await chain.resume()
    await stage.worker(pack=echo, ship=echo).drain()
    assert (await stage.flows.load(key)).status is Status.DONE
    packed = {"mageflow_results": {"order": 17}}
    assert stage.hatchet.inputs("ship") == [{"mageflow_results": [packed, packed]}]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stored_scheduled_chain_starts_by_itself(stage: Stage, version: int) -> None:
    """Its time is over: a reconciler starts it with the message and the options that were stored with it."""
    key = await read_fixture(stage, version, "scheduled_chain")
    chain = await stage.flows.load(key)
    assert isinstance(chain, ChainSignature)
    assert (chain.status, chain.history[-1].why) == (Status.PENDING, "scheduled: for 2025-01-01T09:24:31+00:00")
    assert chain.starts_at == datetime(2025, 1, 1, 9, 24, 31, 775000, tzinfo=UTC)
    worker = stage.worker(price=echo, pack=echo, receipt=echo)
    await stage.flows.reconciler().sweep()
    await worker.drain()
    assert (await stage.flows.load(key)).status is Status.DONE
    assert stage.hatchet.inputs("price") == [{"order": 17}]
    assert stage.hatchet.by_task() == {"price": 1, "pack": 2, "receipt": 1}
    assert {(run.request.metadata["tenant"], run.request.priority) for run in stage.hatchet.runs.values()} == {
        ("acme", 3)
    }
