"""Several processes use the same locks: hundreds of planned deadlocks, and a load that must never have one."""

import asyncio
import math

import pytest

from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.process_main import CrossProcessDeadlock, plan
from tests.locks.processes import LockProcess


def expected_victim(planned: CrossProcessDeadlock) -> int | None:
    """Place of the victim; None if it depends on who closed the cycle."""
    places = range(planned.size)
    if planned.policy == "youngest":
        return max(places, key=lambda place: planned.born[place])
    if planned.policy == "lowest_priority":
        return min(places, key=lambda place: (planned.priority[place], -planned.born[place]))
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(2, 400), (3, 350), (5, 250)])
async def test_every_planned_deadlock_is_found_at_once_and_costs_one_victim(
    valkey: EmbeddedValkey, capsys: pytest.CaptureFixture[str], size: int, count: int
) -> None:
    """1,000 deadlocks of 2, 3 and 5 tasks in four processes, every policy: one victim each, the right one; all finish.

    The verdict takes no round trip of its own: there are as many script calls as requests.
    """
    processes, seed = 4, 2026
    started = [
        await LockProcess.start("deadlocks", valkey.url, index, processes, seed, count, size, 8)
        for index in range(processes)
    ]
    try:
        lines = [line for printed in await asyncio.gather(*(each.remaining() for each in started)) for line in printed]
    finally:
        for each in started:
            await each.kill()
    endings: dict[int, list[dict[str, object]]] = {}
    for line in lines:
        if "planned" in line:
            endings.setdefault(line["planned"], []).append(line)
    summaries = [line for line in lines if "deadlocks" in line]
    deadlocks = [each for line in summaries for each in line["deadlocks"]]
    published = {victim: (policy, length, took) for policy, victim, length, took in deadlocks}
    assert len(deadlocks) == count, "each is published by exactly one process"
    for planned in plan(seed, count, processes, size):
        ended = endings[planned.number]
        victims = [each for each in ended if each["ending"] == "victim"]
        assert len(victims) == 1
        victim = victims[0]
        assert victim["policy"] == planned.policy
        names = {f"{planned.number}-{place}" for place in range(planned.size)}
        assert isinstance(victim["cycle"], list)
        assert set(victim["cycle"]) == names
        assert len(victim["cycle"]) == planned.size
        assert published[f"{planned.number}-{victim['place']}"][:2] == (planned.policy, planned.size)
        if (expected := expected_victim(planned)) is not None:
            assert victim["place"] == expected
        elif planned.policy == "requester":
            assert victim["cycle"][0] == f"{planned.number}-{victim['place']}"
        assert sorted(each["place"] for each in ended if each["ending"] == "both") == list(range(planned.size))
    acquires, needed = (sum(line[name] for line in summaries) for name in ("acquires", "needed"))
    assert acquires == needed, "one script call per request, the verdict included"
    times = sorted(took for _, _, took in published.values())
    p50, p99 = (times[math.ceil(len(times) * share) - 1] * 1000 for share in (0.5, 0.99))
    with capsys.disabled():
        print(
            f"\n{count} deadlocks of {size} tasks over {processes} processes: {acquires / needed:.2f} round trips per "
            f"request; from the closing request to the verdict p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        )


@pytest.mark.slow
async def test_tasks_that_order_their_locks_never_meet_a_deadlock(valkey: EmbeddedValkey) -> None:
    """Never two holders, tokens always grow, not one false positive. ``run_soak.py`` does it 200,000 times."""
    started = [await LockProcess.start("soak", valkey.url, index, 25, 1_500, 12, 7) for index in range(2)]
    try:
        lines = [line for printed in await asyncio.gather(*(each.remaining() for each in started)) for line in printed]
    finally:
        for each in started:
            await each.kill()
    assert [line for line in lines if "violation" in line] == []
    assert sum(line["done"] for line in lines) >= 3_000
    assert sum(line["deadlocks"] + line["lost"] for line in lines) == 0
