"""A reference model of the lock scripts, on plain objects instead of records.

Where the scripts may choose (which of several cycles is broken first) the model checks the choice and follows it.
It predicts everything else.
"""

from dataclasses import dataclass, field
from itertools import count

from mageflow.store import FoundCycle, VictimPolicy


@dataclass
class HeldLock:
    """A held lock; ``token`` is symbolic until it is bound to the real one."""

    owner: str
    token: int
    request_ids: set[str]


@dataclass
class Request:
    """A request that has not ended."""

    id: str
    owner: str
    locks: list[str]
    enclosing_tokens: set[int]
    policy: VictimPolicy
    taken: int = 0
    state: str = "new"
    """new (being decided), queued, granted, deadlock"""
    waiting_for: str = ""
    has_record: bool = False


@dataclass
class OwnerFacts:
    """What a victim is chosen by."""

    born: int
    priority: int


@dataclass
class ReferenceModel:
    """The locks of one namespace."""

    facts: dict[str, OwnerFacts]
    held: dict[str, HeldLock] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    woken: list[tuple[str, str]] = field(default_factory=list)
    found: list[FoundCycle] = field(default_factory=list)
    """Cycles the script reports for the operation at hand, to be accounted for one by one."""
    tokens: count = field(default_factory=lambda: count(1))

    # -- operations

    def acquire(self, request: Request, *, can_wait: bool) -> str:
        self.requests[request.id] = request
        if not can_wait:
            self._take(request)
            if request.taken == len(request.locks):
                request.state = "granted"
                return "granted"
            self._drop(request)
            del self.requests[request.id]
            return "busy"
        self._serve(request, is_answered=True)
        if request.state == "deadlock":
            del self.requests[request.id]
        return request.state

    def end(self, request: Request) -> int:
        del self.requests[request.id]
        self._leave_queue(request)
        return self._drop(request)

    def end_owners(self, owners: list[str]) -> None:
        for request in [each for each in self.requests.values() if each.owner in owners]:
            self._leave_queue(request)
            del self.requests[request.id]
        for owner in owners:
            for lock in [lock for lock, hold in self.held.items() if hold.owner == owner]:
                del self.held[lock]
                self._hand_over(lock)

    # -- what follows

    def _take(self, request: Request) -> None:
        while request.taken < len(request.locks):
            lock = request.locks[request.taken]
            hold = self.held.get(lock)
            if hold is None:
                hold = self.held[lock] = HeldLock(request.owner, next(self.tokens), set())
            if hold.owner != request.owner:
                return
            hold.request_ids.add(request.id)
            request.enclosing_tokens = request.enclosing_tokens | {hold.token}
            request.taken += 1

    def _serve(self, request: Request, *, is_answered: bool = False) -> None:
        self._take(request)
        if request.taken == len(request.locks):
            request.state = "granted"
            if not is_answered:
                self.woken.append((request.id, "granted"))
            return
        request.state, request.waiting_for = "queued", request.locks[request.taken]
        request.has_record = True
        self.queues.setdefault(request.waiting_for, []).append(request.id)
        while request.state == "queued" and self._is_on_a_cycle(request):
            assert self.found, f"{request.id} is on a cycle that the script does not report"
            self._break(self.found.pop(0), request, is_answered=is_answered)

    def _break(self, found: FoundCycle, start: Request, *, is_answered: bool) -> None:
        cycle = [self._at(edge.run_id, f"{edge.resource}") for edge in found.cycle]
        assert start in cycle[0], "the cycle begins with the request that closed it"
        for here, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert any(after in self._after(request) for request in here for after in following), "every edge exists"
        facts = [self.facts[edge.run_id] for edge in found.cycle]
        assert found.policy == start.policy
        if start.policy == "requester":
            assert found.victim_index == 0
        elif start.policy == "youngest":
            assert facts[found.victim_index].born == max(each.born for each in facts)
        else:
            lowest = min(each.priority for each in facts)
            assert facts[found.victim_index].priority == lowest
            young = max(each.born for each in facts if each.priority == lowest)
            assert facts[found.victim_index].born == young
        candidates = [each for each in cycle[found.victim_index] if self._closes(each, cycle, found.victim_index)]
        victim = start if start in candidates and found.victim_index == 0 else candidates[0]
        self._leave_queue(victim)
        victim.state = "deadlock"
        if victim is not start or not is_answered:
            self.woken.append((victim.id, "deadlock"))
        self._drop(victim)

    def _at(self, owner: str, lock: str) -> list[Request]:
        return [
            each
            for each in self.requests.values()
            if each.owner == owner and each.state == "queued" and each.waiting_for == lock
        ]

    def _closes(self, request: Request, cycle: list[list[Request]], index: int) -> bool:
        before, after = cycle[index - 1], cycle[(index + 1) % len(cycle)]
        return any(request in self._after(each) for each in before) and any(
            each in self._after(request) for each in after
        )

    def _after(self, request: Request) -> list[Request]:
        hold = self.held[request.waiting_for]
        return [
            each
            for each in self.requests.values()
            if each.owner == hold.owner and each.state == "queued" and hold.token in each.enclosing_tokens
        ]

    def _is_on_a_cycle(self, start: Request) -> bool:
        reached: set[str] = set()
        front = [start]
        while front:
            for each in self._after(front.pop()):
                if each is start:
                    return True
                if each.id not in reached:
                    reached.add(each.id)
                    front.append(each)
        return False

    def _drop(self, request: Request) -> int:
        dropped = 0
        for lock in request.locks:
            hold = self.held.get(lock)
            if hold is None or request.id not in hold.request_ids:
                continue
            dropped += 1
            hold.request_ids.discard(request.id)
            if not hold.request_ids:
                del self.held[lock]
                self._hand_over(lock)
        return dropped

    def _leave_queue(self, request: Request) -> None:
        if request.state == "queued":
            self.queues[request.waiting_for].remove(request.id)

    def _hand_over(self, lock: str) -> None:
        while lock not in self.held and self.queues.get(lock):
            first = self.requests[self.queues[lock].pop(0)]
            self._serve(first)
            for each in list(self.requests.values()):
                hold = self.held.get(lock)
                if (
                    hold
                    and each.owner == hold.owner == first.owner
                    and each.state == "queued"
                    and each.waiting_for == lock
                ):
                    self._leave_queue(each)
                    self._serve(each)
