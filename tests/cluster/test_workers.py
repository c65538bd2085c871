"""The cluster view of real workers."""

from typing import Any

import pytest
from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, Settings
from tests.cluster.conftest import until
from tests.integration.conftest import Observed, make_observed  # noqa: F401 - a fixture


class Message(BaseModel):
    x: int = 0


@pytest.mark.parametrize(("cluster_view", "leads"), [("leader", 1.0), ("off", None)])
async def test_a_worker_shows_the_cluster_unless_switched_off(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    mageflow_worker: Any,
    cluster_view: str,
    leads: float | None,
):
    """It leads, with what its client stored; no key of it is kept for ever."""
    observed: Observed = make_observed(mageflow_redis.url, settings=Settings(metrics_port=0, cluster_view=cluster_view))
    client = observed.client

    @client.task(name=f"counted-{cluster_view}")
    async def counted(msg: Message) -> dict[str, Any]:
        return {}

    await client.sign(counted)
    mageflow_worker.in_process(client, "counted", workflows=[counted])

    def shown(name: str, **labels: str) -> float | None:
        return observed.registry.get_sample_value(name, labels)

    await counted.aio_run(Message())
    if leads:
        await until(lambda: shown("mageflow_cluster_leader") == leads)
        assert shown("mageflow_signatures", kind="task", status="pending") == 1
    assert shown("mageflow_cluster_leader") == leads
    assert mageflow_redis.keys_without_ttl() == []


def test_making_a_client_observes_nothing(mageflow_engine: Any, mageflow_redis: Any):
    """Only a worker reads the cluster; a producer's client does not."""
    Mageflow(Hatchet(), mageflow_redis.url)
    assert mageflow_redis.keys_without_ttl("") == []
