"""What waits in Hatchet, as the elected worker shows it: real workers on the local engine."""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from mageflow import Settings
from mageflow.cluster import QueueObserver
from mageflow.errors import DispatchError
from mageflow.hatchet import waiting_runs
from mageflow.interceptors import Event, Interceptor, QueueView, WaitingRuns
from tests.cluster.conftest import until
from tests.integration.conftest import Observed, make_observed  # noqa: F401 - a fixture

INTERVAL_SECONDS = 0.3


class Message(BaseModel):
    x: int = 0


async def test_the_leader_shows_what_waits_for_a_slot(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    mageflow_worker: Any,
) -> None:
    """Depth and age by task label: one run holds the only slot, three wait; at the end nothing waits, as 0."""
    settings = Settings(metrics_port=0, queue_interval_s=INTERVAL_SECONDS)
    observed: Observed = make_observed(mageflow_redis.url, settings=settings)
    client = observed.client
    flow = client.workflow(name="queue-flow", input_validator=Message)
    go = asyncio.Event()

    @client.task(name="queue-busy")
    async def busy(msg: Message) -> dict[str, Any]:
        while not go.is_set():
            await asyncio.sleep(0.02)
        return {}

    @flow.task(name="step")
    async def step(msg: Message, ctx: Any) -> dict[str, Any]:
        return {}

    mageflow_worker.in_process(client, "queue", slots=1, workflows=[busy, flow])

    def shown(name: str, task: str) -> float | None:
        return observed.registry.get_sample_value(name, {"task": task})

    for _ in range(4):
        await busy.aio_run(Message(), wait_for_result=False)
    await until(lambda: shown("mageflow_tasks_waiting", "queue-busy") == 3)
    await flow.aio_run(Message(), wait_for_result=False)
    await until(lambda: shown("mageflow_tasks_waiting", "queue-flow:step") == 1)
    undeclared = await waiting_runs(client.metrics, [])
    assert {name: undeclared[name].count for name in ("queue-busy", "step")} == {"queue-busy": 3, "step": 1}
    await asyncio.sleep(1)
    await until(lambda: (shown("mageflow_task_oldest_waiting_seconds", "queue-busy") or 0) > 1)
    assert (shown("mageflow_task_oldest_waiting_seconds", "queue-busy") or 0) < 30
    go.set()
    for task in ("queue-busy", "queue-flow:step"):
        await until(lambda task=task: shown("mageflow_tasks_waiting", task) == 0)
        assert shown("mageflow_task_oldest_waiting_seconds", task) == 0


async def test_a_retry_that_waits_is_counted_and_has_no_age(
    make_observed: Any,  # noqa: F811
    mageflow_redis: Any,
    mageflow_worker: Any,
) -> None:
    """It waits for its backoff. Its run is as old as all its attempts, which is no sign of missing workers."""
    settings = Settings(metrics_port=0, queue_interval_s=INTERVAL_SECONDS)
    observed: Observed = make_observed(mageflow_redis.url, settings=settings)
    client = observed.client
    go = asyncio.Event()

    @client.task(name="queue-first")
    async def first(msg: Message) -> dict[str, Any]:
        await go.wait()
        return {}

    @client.task(name="queue-retried", retries=1, backoff_factor=30.0, backoff_max_seconds=30)
    async def retried(msg: Message) -> dict[str, Any]:
        raise ValueError

    mageflow_worker.in_process(client, "retries", slots=2, workflows=[first, retried])

    def shown(name: str, task: str) -> float | None:
        return observed.registry.get_sample_value(name, {"task": task})

    await first.aio_run(Message(), wait_for_result=False)
    await retried.aio_run(Message(), wait_for_result=False)
    await until(lambda: shown("mageflow_tasks_waiting", "queue-retried") == 1)
    await asyncio.sleep(5 * INTERVAL_SECONDS)
    assert shown("mageflow_tasks_waiting", "queue-retried") == 1
    go.set()  # now nothing else waits or runs
    await asyncio.sleep(5 * INTERVAL_SECONDS)
    assert shown("mageflow_tasks_waiting", "queue-retried") == 1
    assert shown("mageflow_task_oldest_waiting_seconds", "queue-retried") == 0


async def test_unreadable_queues_are_absent_and_asked_for_less_often() -> None:
    """Each failure doubles the pause; a reading is published with the time until which it is true."""
    asked: list[float] = []
    loop = asyncio.get_running_loop()
    answers: list[Mapping[str, WaitingRuns] | None] = [None, None, None, {"pay": WaitingRuns(2, 5.0)}]

    async def read() -> Mapping[str, WaitingRuns]:
        asked.append(loop.time())
        answer = answers[min(len(asked), len(answers)) - 1]
        if answer is None:
            raise DispatchError("task stats", "429 Too Many Requests", refused=True)
        return answer

    seen = Seen()
    leading = True
    observer = QueueObserver(read, lambda: leading, seen, interval_seconds=0.05)
    task = asyncio.create_task(observer.run())
    await until(lambda: len(asked) >= 4)
    await until(lambda: len(seen.views) >= 1)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)][:3]
    assert [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True, True, True]
    assert seen.views[0].waiting == {"pay": WaitingRuns(2, 5.0)}
    assert 0 < seen.views[0].valid_until - seen.at[0] <= 3 * 0.05
    leading = False
    await asyncio.sleep(0.2)
    count = len(asked)
    await asyncio.sleep(0.3)
    assert len(asked) == count, "a worker that does not lead does not ask"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Seen(Interceptor):
    def __init__(self) -> None:
        self.views: list[QueueView] = []
        self.at: list[float] = []

    def event(self, event: Event) -> None:
        if isinstance(event, QueueView):
            self.views.append(event)
            self.at.append(asyncio.get_running_loop().time())
