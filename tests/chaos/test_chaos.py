"""A bounded part of ``python -m tests.chaos``: every flow ends as it must, and no body that succeeded runs again."""

import itertools
import json
import re
from pathlib import Path

import pytest
from redis.cluster import RedisCluster

from mageflow.store import SHARDS
from tests.chaos.faults import FAULTS
from tests.chaos.run import run
from tests.flows.crash_injection.verify import RedisHistory
from tests.store.topologies import ClusterOfThree, valkey_binary

FLOWS = 10
BY_NAME = {each.name: each for each in FAULTS}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no-replicas", "kill-redis", "damaged-records"])
async def test_flows_end_as_they_must(fault: str) -> None:
    """Chains, swarms and both in each other, with callbacks, on two worker processes."""
    row = await run(BY_NAME[fault], FLOWS, seed=1)
    assert row.problems == []
    assert (row.flows, row.done, row.lost, row.doubled, row.stuck) == (FLOWS, FLOWS, 0, 0, 0)
    assert row.is_right


@pytest.mark.slow
def test_states_are_in_order_although_their_slot_has_moved() -> None:
    """From the first server to the second, and from the last to the first."""
    with ClusterOfThree(valkey_binary()) as cluster:
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "appendonly", "yes")
        client = RedisCluster.from_url(cluster.url)
        keys = [f"mageflow:{{/{shard:x}}}:chain:a:members" for shard in range(SHARDS)]
        slots = [client.keyslot(key) for key in keys]

        def write(*states: str) -> None:
            for key, state in itertools.product(keys, states):
                client.hset(key, "0", json.dumps({"status": state}))

        write("queued", "active")
        with cluster.moving(slots):
            pass
        write("done")
        client.close()
        history = RedisHistory.read(*(each.directory for each in cluster.nodes))
    assert len(history.records) == SHARDS
    for record in history.records.values():
        assert [state["status"] for state in record.members["0"].states] == ["queued", "active", "done"]


def test_every_fault_is_in_the_table_of_the_page(root: Path) -> None:
    """``docs/faults.md`` has the row of each fault, with nothing lost, doubled or stuck."""
    page = (root / "docs" / "faults.md").read_text()
    for fault in FAULTS:
        found = re.search(rf"^\| {re.escape(fault.text)} \|(.+)\|$", page, re.MULTILINE)
        assert found, fault.text
        flows, done, lost, doubled, stuck, _ = (int(each) for each in found[1].split("|"))
        assert flows == done >= 100
        assert lost == doubled == stuck == 0
