"""The scripts against a reference model: whatever a crowd of runs does, both agree on everything that can be seen."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockReply, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.reference import Ask, Facts, Model

LOCKS = ["a", "b", "c", "d"]
OWNERS = {"r1": "s1", "r2": "s1", "r3": "s2", "r4": "s2", "r5": "s3", "r6": "s3"}
FACTS = {
    "r1": Facts(born=30, priority=1),
    "r2": Facts(born=10, priority=2),
    "r3": Facts(born=60, priority=3),
    "r4": Facts(born=20, priority=1),
    "r5": Facts(born=50, priority=2),
    "r6": Facts(born=40, priority=3),
}


class Locks(RuleBasedStateMachine):
    """Six runs of three processes around four locks."""

    server: EmbeddedValkey

    def __init__(self) -> None:
        super().__init__()
        self.server.flush()
        self.loop = asyncio.new_event_loop()
        self.port = RedisPort(self.server.url)
        self.keys = Keys("mageflow", "model")
        self.store = LockStore(self.port, self.keys)
        self.model = Model(FACTS)
        self.ids = itertools.count(1)
        self.real: dict[int, int] = {}
        self.largest = 0
        self.dead: set[str] = set()

    def teardown(self) -> None:
        assert self.server.keys_without_ttl() == []
        self.loop.run_until_complete(self.port.aclose())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def ask_redis(self, work: Any) -> LockReply:
        reply: LockReply = self.loop.run_until_complete(work)
        self.model.found = list(reply.resolved)
        if self.dead:
            sessions = sorted(self.dead)
            owners = [owner for session in sessions for owner in sorted(OWNERS) if OWNERS[owner] == session]
            held = {lock: hold.owner for lock, hold in self.model.held.items() if hold.owner in owners}
            assert {(key.name, party.run_id) for key, party in reply.expired} == set(held.items())
            self.model.end_owners(owners)
            self.dead.clear()
        else:
            assert reply.expired == ()
        return reply

    def claim(self, ask: Ask, under: tuple[int, ...], *, can_wait: bool = True) -> LockClaim:
        return LockClaim(
            request_id=ask.id,
            attempt_id=ask.owner,
            session_id=OWNERS[ask.owner],
            session_is_open=False,
            resources=tuple(ResourceKey(lock) for lock in ask.locks),
            owner=LockOwner(task=f"task-{ask.owner}", run_id=ask.owner),
            lease_seconds=60.0,
            wake_id=OWNERS[ask.owner],
            policy=ask.policy,
            born_ms=FACTS[ask.owner].born,
            priority=FACTS[ask.owner].priority,
            enclosing_tokens=under,
            can_wait=can_wait,
        )

    @rule(
        owner=st.sampled_from(sorted(OWNERS)),
        locks=st.one_of(
            st.sampled_from(LOCKS).map(lambda lock: [lock]),
            st.lists(st.sampled_from(LOCKS), min_size=2, max_size=3, unique=True).map(sorted),
        ),
        nested=st.sampled_from(["in all", "in all", "in all", "in one", "in none"]),
        policy=st.sampled_from(["requester", "youngest", "lowest_priority"]),
        can_wait=st.sampled_from([True, True, True, True, False]),
    )
    def acquire(self, owner: str, locks: list[str], nested: str, policy: Any, can_wait: bool) -> None:
        ours = [] if OWNERS[owner] in self.dead else [h.token for h in self.model.held.values() if h.owner == owner]
        symbolic = {"in all": ours, "in one": ours[:1], "in none": []}[nested]
        ask = Ask(f"q{next(self.ids)}", owner, locks, set(symbolic), policy)
        claim = self.claim(ask, tuple(self.real[each] for each in symbolic), can_wait=can_wait)
        reply = self.ask_redis(self.store.acquire(claim))
        assert reply.verdict.kind == self.model.acquire(ask, can_wait=can_wait)
        if reply.verdict.kind == "queued":
            queue = self.model.queues[ask.awaits]
            assert reply.verdict.waiting_for == ResourceKey(ask.awaits)
            assert reply.verdict.position == queue.index(ask.id) + 1
            assert reply.verdict.holder is not None
            assert reply.verdict.holder.run_id == self.model.held[ask.awaits].owner
        self.settle()

    @precondition(lambda self: self.model.asks)
    @rule(data=st.data(), mode=st.sampled_from(["end", "end", "end", "again", "withdraw"]))
    def answer(self, data: Any, mode: str) -> None:
        ask = self.model.asks[data.draw(st.sampled_from(sorted(self.model.asks)))]
        resources = tuple(ResourceKey(lock) for lock in ask.locks)
        if mode == "again":
            self.repeat(ask)
            return
        call = self.store.withdraw if mode == "withdraw" else self.store.release
        reply = self.ask_redis(call(ask.id, resources))
        if ask.id not in self.model.asks:
            assert (reply.verdict.kind, reply.verdict.released) == ("ended", 0)
        elif mode == "withdraw" and ask.state == "granted" and ask.has_record:
            assert reply.verdict.kind == "granted"
        elif ask.state == "deadlock":
            assert reply.verdict.kind == "deadlock"
            self.model.end(ask)
        else:
            ended = self.model.end(ask)
            assert (reply.verdict.kind, reply.verdict.released) == ("ended", ended)
        self.settle()

    def repeat(self, ask: Ask) -> None:
        """A driver that heard no answer sends the same request again."""
        if OWNERS[ask.owner] in self.dead:
            return
        reply = self.ask_redis(self.store.acquire(self.claim(ask, ())))
        assert reply.verdict.kind == ask.state
        if ask.state == "granted":
            assert reply.verdict.tokens == tuple(self.real[self.model.held[lock].token] for lock in ask.locks)
        if ask.state == "deadlock":
            self.model.end(ask)
        self.settle()

    @rule(
        owner=st.sampled_from(sorted(OWNERS)),
        lock=st.sampled_from(LOCKS),
        policy=st.sampled_from(["requester", "youngest", "lowest_priority"]),
    )
    def acquire_inside(self, owner: str, lock: str, policy: Any) -> None:
        """What most programs do, and what closes cycles."""
        self.acquire(owner, [lock], "in all", policy, can_wait=True)

    @rule(
        what=st.sampled_from(["renew", "renew", "end run", "end run", "end session", "die"]),
        owner=st.sampled_from(sorted(OWNERS)),
    )
    def disturb(self, what: str, owner: str) -> None:
        session = OWNERS[owner]
        if what == "end run":
            self.end_run(owner)
        else:
            {"renew": self.renew, "end session": self.end_session, "die": self.die}[what](session)

    def end_run(self, owner: str) -> None:
        self.ask_redis(self.store.end_attempts(OWNERS[owner], [owner]))
        self.model.end_owners([owner])
        self.settle()

    def end_session(self, session: str) -> None:
        self.ask_redis(self.store.end_session(session))
        self.model.end_owners([owner for owner in sorted(OWNERS) if OWNERS[owner] == session])
        self.settle()

    def die(self, session: str) -> None:
        """The process is silent for longer than its lease: whoever calls next finds out."""
        if len(self.dead) == 2:
            return
        live = self.loop.run_until_complete(
            self.port.command("ZADD", self.keys.lock("sessions"), "XX", "CH", 1, session)
        )
        if live:
            self.dead.add(session)

    def renew(self, session: str) -> None:
        was_dead = session in self.dead
        mine = [each for each in self.model.asks.values() if OWNERS[each.owner] == session]
        leases = [
            (ResourceKey(lock), self.real[hold.token])
            for lock, hold in self.model.held.items()
            if OWNERS[hold.owner] == session
        ]
        asked = [each for each in mine if each.has_record]
        reply = self.ask_redis(
            self.store.renew(session, 60.0, [*leases, (ResourceKey("a"), 12345)], [*(a.id for a in asked), "q0"])
        )
        if was_dead or reply.verdict.kind == "lost":
            assert reply.verdict.kind == "lost"
            assert not [each for each in self.model.asks.values() if OWNERS[each.owner] == session]
        else:
            assert reply.gone_tokens == {12345}
            assert reply.waits["q0"].kind == "gone"
            for each in asked:
                assert reply.waits[each.id].kind == self.model.asks[each.id].state
        self.settle()

    def settle(self) -> None:
        """After each operation: the picture, the verdicts that were sent, and the tokens are the model's."""
        assert self.model.found == [], "the script reports a cycle the model does not have"
        picture = self.loop.run_until_complete(self.store.snapshot())
        assert {each.resource.name: each.owner.run_id for each in picture.holdings} == {
            lock: hold.owner for lock, hold in self.model.held.items()
        }
        queues: dict[str, list[str]] = {}
        for wait in picture.waits:
            queues.setdefault(wait.resource.name, []).append(wait.request_id)
        assert queues == {lock: queue for lock, queue in self.model.queues.items() if queue}
        assert {lock for lock, queue in queues.items() if queue} <= set(self.model.held), "a free lock has no queue"
        fresh: list[int] = []
        for each in picture.holdings:
            symbolic = self.model.held[each.resource.name].token
            if symbolic not in self.real:
                fresh.append(each.token)
            assert self.real.setdefault(symbolic, each.token) == each.token
        assert all(token > self.largest for token in fresh), "tokens grow"
        self.largest = max([self.largest, *fresh])
        sent: list[tuple[str, str]] = []
        for session in ("s1", "s2", "s3"):
            key = f"{self.keys.lock('wake')}:{session}"
            while verdicts := self.loop.run_until_complete(self._pop(key)):
                sent.extend(verdicts)
        assert sorted(sent) == sorted(self.model.woken)
        self.model.woken.clear()

    async def _pop(self, key: str) -> list[tuple[str, str]]:
        if not await self.port.command("LLEN", key):
            return []
        verdicts = await self.store.verdicts(key.rpartition(":")[2], 1.0)
        return [(request, verdict.kind) for request, verdict in verdicts or ()]

    @invariant()
    def no_cycle_is_left(self) -> None:
        for ask in self.model.asks.values():
            if ask.state == "queued" and not self.dead:
                assert not self.model._is_on_a_cycle(ask)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_scripts_mean_what_the_reference_model_says(valkey: EmbeddedValkey) -> None:
    """Grants, queues, verdicts, tokens, cycles and victims agree after every operation of any history."""
    Locks.server = valkey
    run_state_machine_as_test(
        Locks,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
