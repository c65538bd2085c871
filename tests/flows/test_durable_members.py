"""Durable tasks as steps and items, however long they sleep."""

from pathlib import Path
from typing import Any

from mageflow import Mageflow, Settings
from mageflow.signatures import SwarmConfig

SCRIPT = Path(__file__).with_name("durable_worker.py")


async def test_durable_tasks_are_steps_and_items(
    mageflow_engine: Any, mageflow_redis: Any, mageflow_worker: Any
) -> None:
    """They sleep through several sweeps of the reconcilers, spawn children, and run once each."""
    environment = {"PROBE_REDIS": mageflow_redis.url, "PYTHONPATH": str(SCRIPT.parents[2])}
    mageflow_worker(SCRIPT, environment=environment)
    client = Mageflow(mageflow_engine.client(), mageflow_redis.url, settings=Settings(metrics=False))
    items = [await client.sign("patient", n=index) for index in range(4)]
    chain = await client.chain(["patient", "after"], n=7)
    swarm = await client.swarm(items, config=SwarmConfig(max_concurrency=2), closed=True)
    await swarm.aio_run_no_wait()
    assert await chain.aio_run() == {"got": 70}
    results = await swarm.aio_run()
    assert [each["n"] for each in results] == [0, 10, 20, 30]
    assert len({each["run"] for each in results}) == 4
    for key in (chain.steps[0], f"{swarm.key}#0"):
        assert (await client.load_signature(key)).last_error is None
