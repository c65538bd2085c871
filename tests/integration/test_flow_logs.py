"""The lines of the attempts in a flow carry the name that its metrics have: one choice on a board finds both."""

from typing import Any

from mageflow import Settings
from tests.integration.conftest import MakeClient, until

NAMES = ("order: to Paris", "parcels of 3")
"""With the separators of the run's metadata in them."""


async def test_every_line_of_an_attempt_has_the_flows_name(
    make_observed: MakeClient, mageflow_redis: Any, mageflow_worker: Any, mageflow_logs: Any
) -> None:
    """From the first line, before the signature is loaded, to the last; also of a run that is turned away."""
    observed = make_observed(mageflow_redis.url, settings=Settings(metrics_port=0))
    client = observed.client

    @client.task(name="names.pick")
    async def pick(message: dict) -> dict:
        return {}

    @client.task(name="names.ship")
    async def ship(message: dict) -> dict:
        raise ValueError("lost")

    @client.task(name="names.hold")
    async def hold(message: dict) -> dict:
        await client.suspend(swarm)
        return {}

    mageflow_worker.in_process(client, "flow-names", workflows=[hold, pick, ship], slots=1)
    swarm = await client.swarm([hold, pick], NAMES[1], closed=True)
    chain = await client.chain([pick, ship], NAMES[0])
    await swarm.aio_run_no_wait({})
    await chain.aio_run_no_wait({})
    await until(lambda: all(map(mageflow_logs.named, ("mageflow.flow.finished", "mageflow.task.skipped"))), 30)

    lines = [each for each in mageflow_logs.events if str(each.get("task", "")).startswith("names.")]
    events = {f"mageflow.task.{each}" for each in ("started", "finished", "failed", "skipped")}
    assert {each["event"] for each in lines} >= events
    assert {each["flow"] for each in lines if each["flow_id"] in chain.key} == {NAMES[0]}
    assert {each["flow"] for each in lines if each["flow_id"] in swarm.key} == {NAMES[1]}
    assert observed.samples.by("flow_name", "mageflow_flows_started_total") == dict.fromkeys(NAMES, 1)
