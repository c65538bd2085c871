"""Which worker dies where: every point of every kind in turn, or a sample."""

import itertools
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from tests.flows.crash_injection.kill_points import KillPoint, Kind
from tests.flows.crash_injection.scenarios import SCENARIOS, Scenario

KINDS: tuple[Kind, ...] = ("call", "await")
KILL_EVERY = 5
SECOND_EVERY = 3
MISSES = 2
"""A stream ends when this many of its kill points were not reached: the number of points varies a little."""

SIMULATED = tuple(each for each in SCENARIOS if not each.needs_processes)


@dataclass
class Case:
    """One flow, the deaths of its workers, and what was noted about them."""

    name: str
    scenario: Scenario
    first: KillPoint | None = None
    second: KillPoint | None = None
    """Where the worker dies that comes after the first death."""
    kills: tuple[float, ...] = ()
    """Seconds from the start of each worker to its SIGKILL."""
    deaths: int = 0
    killed: int = 0
    problem: str = ""
    seconds: float = 0.0


@dataclass
class Stream:
    """The kill points of one kind in one scenario, one after another, until there are no more.

    Attributes:
        is_second: The points are in the worker that comes after a first death, counted from its start.
        stride: Only every n-th point.
        first_kinds: Kinds of the first death, where the points are of the second.
    """

    scenario: Scenario
    kind: Kind
    is_second: bool = False
    stride: int = 1
    start: int = 1
    seed: int = 0
    first_kinds: tuple[Kind, ...] = KINDS
    misses: int = field(default=0, init=False)

    @property
    def is_over(self) -> bool:
        return self.misses >= MISSES

    def cases(self) -> Iterator[Case]:
        chance = random.Random(f"{self.seed} {self.scenario.name} {self.kind} {self.is_second}")
        for number in itertools.count(self.start, self.stride):
            if self.is_over:
                return
            name = f"{self.scenario.name}/{self.kind}{'/second' if self.is_second else ''}/{number}/{self.seed}"
            point = KillPoint(self.kind, number, name)
            if self.is_second:
                first = KillPoint(chance.choice(self.first_kinds), chance.randint(1, 25), name)
                yield Case(name, self.scenario, first, second=point)
            else:
                yield Case(name, self.scenario, point)

    def note(self, case: Case) -> None:
        """A case is over: count it as a miss if its point was not reached."""
        if case.deaths == int(self.is_second):
            self.misses += 1


class Work(Protocol):
    """Hands out cases."""

    def next(self) -> Case | None:
        """The next case, or None when all are handed out."""
        ...

    def done(self, case: Case) -> None:
        """Note the end of a case."""
        ...


class Matrix:
    """Every first point, and at least ``wanted`` deaths; second points and SIGKILL in between."""

    def __init__(self, first: Sequence[Stream], second: Sequence[Stream], kills: Iterator[Case], wanted: int) -> None:
        self._first = deque((stream, stream.cases()) for stream in first)
        self._second = deque((stream, stream.cases()) for stream in second)
        self._kills = kills
        self._wanted = wanted
        self._streams: dict[str, Stream] = {}
        self._turn = 0
        self._deaths = 0
        self._is_stopped = False

    def stop(self) -> None:
        """Hand out nothing more."""
        self._is_stopped = True

    def next(self) -> Case | None:
        if self._is_stopped:
            return None
        self._turn += 1
        if self._turn % KILL_EVERY == 0:
            return next(self._kills)
        if self._turn % SECOND_EVERY == 0 and (case := self._next_point(self._second)):
            return case
        if case := self._next_point(self._first):
            return case
        if self._deaths >= self._wanted:
            return None
        return self._next_point(self._second) or next(self._kills)

    def _next_point(self, turns: "deque[tuple[Stream, Iterator[Case]]]") -> Case | None:
        while turns:
            stream, cases = turns.popleft()
            if (case := next(cases, None)) is not None:
                turns.append((stream, cases))
                self._streams[case.name] = stream
                return case
        return None

    def done(self, case: Case) -> None:
        self._deaths += case.deaths
        if stream := self._streams.get(case.name):
            stream.note(case)


class Sample:
    """A few points of everything, the same ones for the same seed."""

    def __init__(self, seed: int, points: int, kills: int) -> None:
        chance = random.Random(seed)
        turns = itertools.cycle(itertools.product(KINDS, SCENARIOS))
        self._cases = deque(replace(each, kills=each.kills[:1]) for each in itertools.islice(random_kills(seed), kills))
        for number, (kind, scenario) in enumerate(itertools.islice(turns, points)):
            name = f"{scenario.name}/{kind}/sample {number}/{seed}"
            self._cases.append(Case(name, scenario, KillPoint(kind, chance.randint(1, 30), name)))

    def next(self) -> Case | None:
        return self._cases.popleft() if self._cases else None

    def done(self, case: Case) -> None:
        """A sample does not depend on what its cases found."""


class Simulated:
    """Every call of the scenarios that can be simulated, over and over, until at least ``wanted`` deaths."""

    def __init__(self, wanted: int, scenarios: Sequence[Scenario] = SIMULATED) -> None:
        self._cases = self._rounds(scenarios)
        self._wanted = wanted
        self._deaths = 0

    def next(self) -> Case | None:
        return next(self._cases) if self._deaths < self._wanted else None

    def done(self, case: Case) -> None:
        self._deaths += case.deaths
        self._stream.note(case)

    def _rounds(self, scenarios: Sequence[Scenario]) -> Iterator[Case]:
        for seed in itertools.count():
            for scenario in scenarios:
                self._stream = Stream(scenario, "call", is_second=seed % 2 == 1, seed=seed, first_kinds=("call",))
                yield from self._stream.cases()


def streams(seed: int, stride: int, wanted: Sequence[Scenario] = SCENARIOS, *, is_second: bool = False) -> list[Stream]:
    """Every point of every scenario, in the first worker or in the one that comes after a death."""
    return [
        Stream(scenario, kind, is_second, stride, start=1 + (seed + index) % stride, seed=seed)
        for kind in KINDS
        for index, scenario in enumerate(wanted)
    ]


def random_kills(seed: int) -> Iterator[Case]:
    """SIGKILL at random moments of every scenario in turn."""
    chance = random.Random(seed)
    for number in itertools.count():
        scenario = SCENARIOS[number % len(SCENARIOS)]
        kills = tuple(chance.uniform(0.0, 1.2 if index == 0 else 4.0) for index in range(chance.choice((1, 1, 2, 3))))
        yield Case(f"{scenario.name}/kill/{number}/{seed}", scenario, kills=kills)
