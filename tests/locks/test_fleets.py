"""Several processes at the same locks: planned deadlocks by the hundred, and a crowd that must never have one."""

import asyncio
import math

import pytest

from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.fleet import MemberProcess
from tests.locks.member import Circle, plan

# Seconds on a machine of its own; not on one that does something else as well.
pytestmark = pytest.mark.timeout(180)


def expected_victim(circle: Circle) -> int | None:
    """None where it depends on who closed the cycle."""
    places = range(circle.size)
    if circle.policy == "youngest":
        return max(places, key=lambda place: circle.born[place])
    if circle.policy == "lowest_priority":
        return min(places, key=lambda place: (circle.priority[place], -circle.born[place]))
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(2, 400), (3, 350), (5, 250)])
async def test_every_planned_deadlock_is_found_at_once_and_costs_one_victim(
    valkey: EmbeddedValkey, capsys: pytest.CaptureFixture[str], size: int, count: int
) -> None:
    """1,000 circles of 2, 3 and 5 tasks over four processes, every policy: one victim each, the right one; all finish.

    The verdict takes no round trip of its own: there are as many script calls as requests.
    """
    processes, seed = 4, 2026
    fleet = [
        await MemberProcess.start("circles", valkey.url, index, processes, seed, count, size, 8)
        for index in range(processes)
    ]
    try:
        lines = [line for said in await asyncio.gather(*(each.rest() for each in fleet)) for line in said]
    finally:
        for each in fleet:
            await each.kill()
    endings: dict[int, list[dict[str, object]]] = {}
    for line in lines:
        if "circle" in line:
            endings.setdefault(line["circle"], []).append(line)
    summaries = [line for line in lines if "deadlocks" in line]
    told = {victim: (policy, length, took) for line in summaries for policy, victim, length, took in line["deadlocks"]}
    assert sum(len(line["deadlocks"]) for line in summaries) == count, "each is told by exactly one process"
    for circle in plan(seed, count, processes, size):
        said = endings[circle.number]
        victims = [each for each in said if each["ending"] == "victim"]
        assert len(victims) == 1
        victim = victims[0]
        assert victim["policy"] == circle.policy
        names = {f"{circle.number}-{place}" for place in range(circle.size)}
        assert isinstance(victim["cycle"], list)
        assert set(victim["cycle"]) == names
        assert len(victim["cycle"]) == circle.size
        assert told[f"{circle.number}-{victim['place']}"][:2] == (circle.policy, circle.size)
        if (expected := expected_victim(circle)) is not None:
            assert victim["place"] == expected
        elif circle.policy == "requester":
            assert victim["cycle"][0] == f"{circle.number}-{victim['place']}"
        assert sorted(each["place"] for each in said if each["ending"] == "both") == list(range(circle.size))
    asked, needed = (sum(line[name] for line in summaries) for name in ("asked", "needed"))
    assert asked == needed, "one script call per request, the verdict included"
    times = sorted(took for _, _, took in told.values())
    p50, p99 = (times[math.ceil(len(times) * share) - 1] * 1000 for share in (0.5, 0.99))
    with capsys.disabled():
        print(
            f"\n{count} deadlocks of {size} tasks over {processes} processes: {asked / needed:.2f} round trips per "
            f"request; from the closing request to the verdict p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        )


@pytest.mark.slow
async def test_tasks_that_order_their_locks_never_meet_a_deadlock(valkey: EmbeddedValkey) -> None:
    """Never two holders, tokens always grow, not one false positive. ``soak.py`` does it 200,000 times."""
    fleet = [await MemberProcess.start("soak", valkey.url, index, 25, 1_500, 12, 7) for index in range(2)]
    try:
        lines = [line for said in await asyncio.gather(*(each.rest() for each in fleet)) for line in said]
    finally:
        for each in fleet:
            await each.kill()
    assert [line for line in lines if "violation" in line] == []
    assert sum(line["done"] for line in lines) >= 3_000
    assert sum(line["deadlocks"] + line["lost"] for line in lines) == 0
