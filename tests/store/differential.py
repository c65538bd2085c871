"""Compares both texts of usual decisions over random stories: ``python -m tests.store.differential --stories 1000``.

A story is random work on a few signatures, chains and swarms: runs that come twice, late or again, suspensions, damage,
keys that expire. After each script the answers and every stored key are compared. Prints each difference with its seed.
"""

import argparse
import asyncio
import json
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from mageflow.config import Settings
from mageflow.errors import MageflowError
from mageflow.flows import Flows
from mageflow.signatures import FailureRecord, RunIdentity, RunOptions, SwarmConfig
from mageflow.store import AttemptOutcome, Keys, MemberPath, Store
from mageflow.testing.valkey import EmbeddedValkey
from mageflow.types import DispatchRun
from tests.flows.admitting import admit
from tests.flows.conftest import echo, stop
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker
from tests.store.differential_locks import LockStory
from tests.store.two_texts import TwoTexts, damage_one

TASK: Final = {"price": echo, "ship": echo, "note": echo}
SETTINGS: Final = Settings(reconcile_grace_seconds=2.0, reconcile_check_seconds=10.0)


async def _fail(message: dict[str, Any]) -> Any:
    raise ValueError("no carrier")


class Story:
    """Random work on one pair of databases."""

    def __init__(self, port: TwoTexts, seed: int) -> None:
        self.port = port
        self.chance = random.Random(seed)
        self.hatchet = FakeHatchet(retries={"price": 2}, is_slow=True)
        self.store = Store(port, Keys("mageflow", "stories"), SETTINGS)
        self.flows = Flows(self.store, self.hatchet, self.hatchet, SETTINGS)
        self.flows._acknowledgements._delay_seconds = 600.0
        self.signatures: list[str] = []
        self.records: list[str] = []
        self.attempts: dict[tuple[str, str], int] = {}
        self.done: Counter[str] = Counter()
        self.steps = self.chance.choice((10, 25, 60))
        self.damages = self.chance.random() < 0.5

    async def play(self) -> None:
        """Play it until both databases differ."""
        self.port.begin()
        with pytest.MonkeyPatch.context() as ids:  # a seed gives the same story
            ids.setattr(uuid, "uuid4", lambda: uuid.UUID(int=self.chance.getrandbits(128)))
            if self.chance.random() < 0.7:
                await self._short()
            else:
                await self._long()
        self.hatchet.queue.clear()
        await stop(self.flows)

    async def _short(self) -> None:
        """Usual runs, one or two places of damage, and usual runs again: with the ends of those that had begun."""
        await self.sign()
        for _ in range(self.chance.randrange(3)):
            await self.usual()
        if self.chance.random() < 0.3:
            with suppress(MageflowError):
                await self.lifecycle()
        for _ in range(self.chance.choice((1, 1, 2))):
            with suppress(MageflowError):
                await self.damage()
        for work in self.chance.choices((self.usual, self.usual, self.settle_known, self.admit, self.settle), k=4):
            if self.port.differences:
                return
            self.done[work.__name__] += 1
            with suppress(MageflowError):
                await work()

    async def settle_known(self) -> None:
        """The usual end of a run that was admitted."""
        if self.attempts:
            await self.settle(self.chance.choice(list(self.attempts)), "succeeded", is_usual=True)

    async def _long(self) -> None:
        await self.sign()
        works: list[Callable[[], Awaitable[Any]]] = [
            *[self.admit] * 10, *[self.settle] * 10, *[self.usual] * 8, *[self.run_by_user] * 3, *[self.work] * 8,
            self.sign, self.flow, self.start, self.start, *[self.lifecycle] * 4, self.sweep, self.pass_time,
            self.alive, self.rare, *[self.damage] * (3 if self.damages else 0),
        ]  # fmt: skip
        for _ in range(self.steps):
            work = self.chance.choice(works)
            self.done[work.__name__] += 1
            with suppress(MageflowError):
                await work()
            if self.port.differences:
                break

    def _signature(self) -> str:
        return self.chance.choice(self.signatures)

    def _record(self) -> str:
        return self.chance.choice(self.records)

    async def sign(self) -> None:
        callbacks = self.chance.choice(((), (), (), ("note",)))
        errors = self.chance.choice(((), (), ("note",), ("note", "ship")))
        found = await self.flows.creation.sign(
            "price", success_callbacks=list(callbacks), error_callbacks=list(errors), text='a"},{"b'
        )
        self.signatures.append(found.key)
        self.records.append(found.key)

    async def flow(self) -> None:
        member = self.chance.choice(("price", "ship", self._signature()))
        if self.chance.random() < 0.5:
            found = await self.flows.creation.chain([member, "ship"], success=["note"], error=["note"])
        else:
            config = SwarmConfig(max_concurrency=2, refill_linger_ms=0)
            found = await self.flows.creation.swarm([member, "price", "ship"], config=config, closed=True)
        self.records.append(found.key)

    async def start(self) -> None:
        await self.flows.start(self._record(), {"a": 1})

    def _run(self, attempt: int, key: str, name: str) -> RunIdentity:
        trace = self.chance.choice(("", "", f"00-{'0' * 31}1-{'0' * 15}1-01"))
        dedupe = self.chance.choice(("", f"{key}@{name}/0", f"{key}@{name}/{self.chance.choice((0, 0, 1))}"))
        run_id = name if self.chance.random() < 0.95 else "other"
        return RunIdentity(run_id, f"step-{name}", self.chance.choice("vw"), attempt, dedupe, trace)

    def _chosen(self) -> tuple[str, str]:
        known = list(self.attempts)
        if known and self.chance.random() < 0.7:
            return self.chance.choice(known)
        return self._signature(), f"r{self.chance.randrange(200)}"

    async def admit(self, chosen: tuple[str, str] | None = None) -> None:
        key, name = chosen or self._chosen()
        before = self.attempts.get((key, name), 0)
        attempt = self.chance.choice((1, before + 1, max(1, before)))
        self.attempts[key, name] = max(before, attempt)
        options = json.dumps({"metadata": {"k": "v"}, "priority": 2})
        await admit(
            self.store,
            key,
            self._run(attempt, key, name),
            input_json=self.chance.choice(("", "{}", '{"x":"é"}')),
            is_replayed=self.chance.random() < 0.1,
            options_json=self.chance.choice(("", "", options)),
            task_names=self.chance.choice(((), ("price",), ("Price", "x"), ("ship",))),
            workflow=self.chance.choice(("",) * 18 + ("task", "hook")),
            wants_signature=self.chance.random() < 0.5,
        )

    async def settle(
        self, chosen: tuple[str, str] | None = None, outcome: Any = None, *, is_usual: bool = False
    ) -> None:
        key, name = chosen or self._chosen()
        outcome = outcome or self.chance.choice(
            ("succeeded",) * 8 + ("failed", "failed", "retried", "cancelled", "timed_out", "lost", "unscheduled")
        )
        will_retry = outcome == "retried" or (outcome != "succeeded" and self.chance.random() < 0.2)
        at = datetime(2026, 1, 1, tzinfo=UTC)
        error = FailureRecord(type="ValueError", message='},{"x', task="", attempt=1, outcome="failed", at=at)
        last = self.attempts.get((key, name), 1)
        stages = {"body": 7, "queue": self.chance.randrange(5)}
        await self.store.settle(
            key,
            RunIdentity(name, f"step-{name}", "w", last, f"{key}@{name}/0")
            if is_usual
            else self._run(self.chance.choice((last, last, last, 1, last + 1)), key, name),
            AttemptOutcome(
                outcome,
                result_json=self.chance.choice((None, "1", '{"y":[]}')) if outcome == "succeeded" else None,
                error=None if outcome == "succeeded" else error,
                will_retry=will_retry,
                max_failures=self.chance.choice((0, 2, 3)) if will_retry else 0,
                input_json=self.chance.choice(("", '{"x":1}')) if outcome != "succeeded" else "",
                reported_by_engine=not is_usual and self.chance.random() < 0.1,
                stages_ms=self.chance.choice(({}, stages)),
            ),
        )

    async def usual(self) -> None:
        key, name = self._signature(), f"u{self.chance.randrange(10**9)}"
        run = RunIdentity(name, f"step-{name}", "w", 1, f"{key}@{name}/0", "")
        await admit(self.store, key, run, input_json="{}", task_names=("price",), wants_signature=False)
        self.attempts[key, name] = 1
        if self.chance.random() < 0.6:
            await self.store.settle(key, run, AttemptOutcome("succeeded", result_json="1", stages_ms={"body": 1}))

    async def run_by_user(self) -> None:
        signature = await self.flows.load(self._signature())
        request = DispatchRun(
            task_name="price",
            input_json="{}",
            signature_key=signature.key,
            dedupe_key=self.flows.new_run_key(signature),
        )
        await self.hatchet.dispatch([request])

    async def work(self) -> None:
        tasks = dict(TASK, **({"price": _fail, "ship": _fail} if self.chance.random() < 0.3 else {}))
        worker = FakeWorker(self.hatchet, self.flows, tasks)
        for _ in range(self.chance.randrange(4)):
            if self.hatchet.queue:
                await worker.one()

    async def lifecycle(self) -> None:
        key = self._record()
        if self.chance.random() < 0.2:
            key += self.chance.choice(("#0", "#.s0", "#.e0", "#@r1", "#@r2.e0"))
        action = self.chance.choice(("suspend", "resume", "resume", "suspend", "interrupt"))
        await getattr(self.flows.lifecycle, action)(key, by="ana", why='},{"')

    async def sweep(self) -> None:
        await self.flows.reconciler().sweep()

    async def pass_time(self) -> None:
        seconds = self.chance.choice((0.01, 1, 5, 11, 100, 3600, 90000, 200000))
        self.port.let_pass(int(seconds * 1e6))

    async def alive(self) -> None:
        key, name = self._chosen()
        await self.store.keep_alive(self.store.keys.parse(key), [(MemberPath.user_run(name), name)])

    async def rare(self) -> None:
        key = self._record()
        soon = datetime.now(UTC) + timedelta(hours=1)
        await self.chance.choice(
            (
                lambda: self.flows.rebinding.rebind(key, {"y": 2}),
                lambda: self.flows.schedules.schedule(key, soon, {"a": 1}, RunOptions(metadata={"b": "c"})),
                lambda: self.flows.schedules.unschedule(key),
                lambda: self.flows.schedules.keep(key, soon),
                lambda: self.store.remove(key),
                lambda: self.store.load_with_result(key),
                self.store.census,
            )
        )()

    async def damage(self) -> None:
        await damage_one(self.port, self.chance)


async def compare(
    url: str, seeds: Iterable[int], kind: type[Story] | type[LockStory] = Story
) -> tuple[list[str], Counter[str], Counter[str]]:
    """Play a story for each seed.

    Returns:
        The first difference of each story that has one; how many calls the first parts have answered; all calls.
    """
    port, found = TwoTexts(url), []
    for seed in seeds:
        story = kind(port, seed)
        await story.play()
        if port.differences:
            found.append(f"seed {seed}: {port.differences[0]}")
    await port.aclose()
    return found, port.answered, port.calls


def main() -> int:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stories", type=int, default=1000)
    parser.add_argument("--of", choices=("signatures", "locks"), default="signatures")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    seeds, kind = (
        range(arguments.seed, arguments.seed + arguments.stories),
        LockStory if arguments.of == "locks" else Story,
    )
    with EmbeddedValkey() as server:
        found, answered, calls = asyncio.run(compare(server.url, seeds, kind))
    for each in found:
        print(each[:1500])
    print(f"{arguments.stories} stories, {len(found)} differ, {time.monotonic() - started:.0f} s")
    print(f"answered by first parts {dict(answered)}, calls {dict(calls)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
