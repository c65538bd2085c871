"""What the lock scripts are supposed to mean, written a second time and differently: plain objects, no records.

Where the scripts are free to choose (which of several cycles is broken first) the model checks the choice and follows
it. Everything else it predicts.
"""

from dataclasses import dataclass, field
from itertools import count

from mageflow.store import FoundCycle, VictimPolicy


@dataclass
class Hold:
    """A held lock; ``token`` is symbolic until it is bound to the real one."""

    owner: str
    token: int
    requests: set[str]


@dataclass
class Ask:
    """A request that has not ended."""

    id: str
    owner: str
    locks: list[str]
    under: set[int]
    policy: VictimPolicy
    taken: int = 0
    state: str = "new"
    """new (being decided), queued, granted, deadlock"""
    awaits: str = ""
    has_record: bool = False


@dataclass
class Facts:
    """What victims are chosen by."""

    born: int
    priority: int


@dataclass
class Model:
    """The locks of one namespace."""

    facts: dict[str, Facts]
    held: dict[str, Hold] = field(default_factory=dict)
    queues: dict[str, list[str]] = field(default_factory=dict)
    asks: dict[str, Ask] = field(default_factory=dict)
    woken: list[tuple[str, str]] = field(default_factory=list)
    found: list[FoundCycle] = field(default_factory=list)
    """Cycles the script reports for the operation at hand, to be accounted for one by one."""
    tokens: count = field(default_factory=lambda: count(1))

    # -- operations

    def acquire(self, ask: Ask, *, can_wait: bool) -> str:
        self.asks[ask.id] = ask
        if not can_wait:
            self._take(ask)
            if ask.taken == len(ask.locks):
                ask.state = "granted"
                return "granted"
            self._drop(ask)
            del self.asks[ask.id]
            return "busy"
        self._serve(ask, asking=True)
        if ask.state == "deadlock":
            del self.asks[ask.id]
        return ask.state

    def end(self, ask: Ask) -> int:
        del self.asks[ask.id]
        self._leave_queue(ask)
        return self._drop(ask)

    def end_owners(self, owners: list[str]) -> None:
        for ask in [each for each in self.asks.values() if each.owner in owners]:
            self._leave_queue(ask)
            del self.asks[ask.id]
        for owner in owners:
            for lock in [lock for lock, hold in self.held.items() if hold.owner == owner]:
                del self.held[lock]
                self._hand_over(lock)

    # -- what follows

    def _take(self, ask: Ask) -> None:
        while ask.taken < len(ask.locks):
            lock = ask.locks[ask.taken]
            hold = self.held.get(lock)
            if hold is None:
                hold = self.held[lock] = Hold(ask.owner, next(self.tokens), set())
            if hold.owner != ask.owner:
                return
            hold.requests.add(ask.id)
            ask.under = ask.under | {hold.token}
            ask.taken += 1

    def _serve(self, ask: Ask, *, asking: bool = False) -> None:
        self._take(ask)
        if ask.taken == len(ask.locks):
            ask.state = "granted"
            if not asking:
                self.woken.append((ask.id, "granted"))
            return
        ask.state, ask.awaits = "queued", ask.locks[ask.taken]
        ask.has_record = True
        self.queues.setdefault(ask.awaits, []).append(ask.id)
        while ask.state == "queued" and self._is_on_a_cycle(ask):
            assert self.found, f"{ask.id} is on a cycle that the script does not report"
            self._break(self.found.pop(0), ask, asking=asking)

    def _break(self, found: FoundCycle, start: Ask, *, asking: bool) -> None:
        cycle = [self._at(edge.run_id, f"{edge.resource}") for edge in found.cycle]
        assert start in cycle[0], "the cycle begins with the request that closed it"
        for here, following in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            assert any(after in self._after(ask) for ask in here for after in following), "every edge exists"
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
        if victim is not start or not asking:
            self.woken.append((victim.id, "deadlock"))
        self._drop(victim)

    def _at(self, owner: str, lock: str) -> list[Ask]:
        return [
            each
            for each in self.asks.values()
            if each.owner == owner and each.state == "queued" and each.awaits == lock
        ]

    def _closes(self, ask: Ask, cycle: list[list[Ask]], index: int) -> bool:
        before, after = cycle[index - 1], cycle[(index + 1) % len(cycle)]
        return any(ask in self._after(each) for each in before) and any(each in self._after(ask) for each in after)

    def _after(self, ask: Ask) -> list[Ask]:
        hold = self.held[ask.awaits]
        return [
            each
            for each in self.asks.values()
            if each.owner == hold.owner and each.state == "queued" and hold.token in each.under
        ]

    def _is_on_a_cycle(self, start: Ask) -> bool:
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

    def _drop(self, ask: Ask) -> int:
        dropped = 0
        for lock in ask.locks:
            hold = self.held.get(lock)
            if hold is None or ask.id not in hold.requests:
                continue
            dropped += 1
            hold.requests.discard(ask.id)
            if not hold.requests:
                del self.held[lock]
                self._hand_over(lock)
        return dropped

    def _leave_queue(self, ask: Ask) -> None:
        if ask.state == "queued":
            self.queues[ask.awaits].remove(ask.id)

    def _hand_over(self, lock: str) -> None:
        while lock not in self.held and self.queues.get(lock):
            first = self.asks[self.queues[lock].pop(0)]
            self._serve(first)
            for each in list(self.asks.values()):
                hold = self.held.get(lock)
                if hold and each.owner == hold.owner == first.owner and each.state == "queued" and each.awaits == lock:
                    self._leave_queue(each)
                    self._serve(each)
