"""The scripts against a reference model: after any history of calls, both agree on everything visible."""

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
from tests.locks.reference_model import OwnerFacts, ReferenceModel, Request

LOCKS = ["a", "b", "c", "d"]
OWNERS = {"r1": "s1", "r2": "s1", "r3": "s2", "r4": "s2", "r5": "s3", "r6": "s3"}
FACTS = {
    "r1": OwnerFacts(born=30, priority=1),
    "r2": OwnerFacts(born=10, priority=2),
    "r3": OwnerFacts(born=60, priority=3),
    "r4": OwnerFacts(born=20, priority=1),
    "r5": OwnerFacts(born=50, priority=2),
    "r6": OwnerFacts(born=40, priority=3),
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
        self.model = ReferenceModel(FACTS)
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

    def claim(self, request: Request, enclosing_tokens: tuple[int, ...], *, can_wait: bool = True) -> LockClaim:
        return LockClaim(
            request_id=request.id,
            attempt_id=request.owner,
            session_id=OWNERS[request.owner],
            session_is_open=False,
            resources=tuple(ResourceKey(lock) for lock in request.locks),
            owner=LockOwner(task=f"task-{request.owner}", run_id=request.owner),
            lease_seconds=60.0,
            wake_id=OWNERS[request.owner],
            policy=request.policy,
            born_ms=FACTS[request.owner].born,
            priority=FACTS[request.owner].priority,
            enclosing_tokens=enclosing_tokens,
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
        request = Request(f"q{next(self.ids)}", owner, locks, set(symbolic), policy)
        claim = self.claim(request, tuple(self.real[each] for each in symbolic), can_wait=can_wait)
        reply = self.ask_redis(self.store.acquire(claim))
        assert reply.verdict.kind == self.model.acquire(request, can_wait=can_wait)
        if reply.verdict.kind == "queued":
            queue = self.model.queues[request.waiting_for]
            assert reply.verdict.waiting_for == ResourceKey(request.waiting_for)
            assert reply.verdict.position == queue.index(request.id) + 1
            assert reply.verdict.holder is not None
            assert reply.verdict.holder.run_id == self.model.held[request.waiting_for].owner
        self.settle()

    @precondition(lambda self: self.model.requests)
    @rule(data=st.data(), mode=st.sampled_from(["end", "end", "end", "again", "withdraw"]))
    def answer(self, data: Any, mode: str) -> None:
        request = self.model.requests[data.draw(st.sampled_from(sorted(self.model.requests)))]
        resources = tuple(ResourceKey(lock) for lock in request.locks)
        if mode == "again":
            self.repeat(request)
            return
        call = self.store.withdraw if mode == "withdraw" else self.store.release
        reply = self.ask_redis(call(request.id, resources))
        if request.id not in self.model.requests:
            assert (reply.verdict.kind, reply.verdict.released) == ("ended", 0)
        elif mode == "withdraw" and request.state == "granted" and request.has_record:
            assert reply.verdict.kind == "granted"
        elif request.state == "deadlock":
            assert reply.verdict.kind == "deadlock"
            self.model.end(request)
        else:
            ended = self.model.end(request)
            assert (reply.verdict.kind, reply.verdict.released) == ("ended", ended)
        self.settle()

    def repeat(self, request: Request) -> None:
        """A driver that misses the answer sends the same request again."""
        if OWNERS[request.owner] in self.dead:
            return
        reply = self.ask_redis(self.store.acquire(self.claim(request, ())))
        assert reply.verdict.kind == request.state
        if request.state == "granted":
            assert reply.verdict.tokens == tuple(self.real[self.model.held[lock].token] for lock in request.locks)
        if request.state == "deadlock":
            self.model.end(request)
        self.settle()

    @rule(
        owner=st.sampled_from(sorted(OWNERS)),
        lock=st.sampled_from(LOCKS),
        policy=st.sampled_from(["requester", "youngest", "lowest_priority"]),
    )
    def acquire_inside(self, owner: str, lock: str, policy: Any) -> None:
        """Nested blocks: what most programs do, and what closes cycles."""
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
        """The process is silent for longer than its lease: the next call of any process ends its session."""
        if len(self.dead) == 2:
            return
        live = self.loop.run_until_complete(
            self.port.command("ZADD", self.keys.lock("sessions"), "XX", "CH", 1, session)
        )
        if live:
            self.dead.add(session)

    def renew(self, session: str) -> None:
        was_dead = session in self.dead
        mine = [each for each in self.model.requests.values() if OWNERS[each.owner] == session]
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
            assert not [each for each in self.model.requests.values() if OWNERS[each.owner] == session]
        else:
            assert reply.gone_tokens == {12345}
            assert reply.waits["q0"].kind == "gone"
            for each in asked:
                assert reply.waits[each.id].kind == self.model.requests[each.id].state
        self.settle()

    def settle(self) -> None:
        """After each operation: snapshot, pushed verdicts and tokens equal those of the model."""
        assert self.model.found == [], "the script reports a cycle the model does not have"
        snapshot = self.loop.run_until_complete(self.store.snapshot())
        assert {each.resource.name: each.owner.run_id for each in snapshot.holdings} == {
            lock: hold.owner for lock, hold in self.model.held.items()
        }
        queues: dict[str, list[str]] = {}
        for wait in snapshot.waits:
            queues.setdefault(wait.resource.name, []).append(wait.request_id)
        assert queues == {lock: queue for lock, queue in self.model.queues.items() if queue}
        assert {lock for lock, queue in queues.items() if queue} <= set(self.model.held), "a free lock has no queue"
        fresh: list[int] = []
        for each in snapshot.holdings:
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
        for request in self.model.requests.values():
            if request.state == "queued" and not self.dead:
                assert not self.model._is_on_a_cycle(request)


@pytest.mark.slow
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
