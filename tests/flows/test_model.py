"""The lifecycle against its table: random interleavings of actions, workers, duplicates and redeliveries."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mageflow.config import Settings
from mageflow.errors import IllegalTransitionError
from mageflow.flows import Flows
from mageflow.signatures import ENDED, TRANSITIONS, FailureRecord, RunIdentity, Status, Transition, after
from mageflow.store import AttemptOutcome, Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.admitting import admit
from tests.flows.fake_hatchet import FakeHatchet, Run

STEPS = 3


class Lifecycle(RuleBasedStateMachine):
    """A chain of three, workers at any point of a run, and a user who suspends, resumes and interrupts."""

    server: EmbeddedValkey
    last_statuses: Counter[Status]
    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.server.flush()
        self.port = RedisPort(self.server.url)
        self.hatchet = FakeHatchet()
        self.flows = Flows(
            Store(self.port, Keys("mageflow", "model"), Settings()), self.hatchet, self.hatchet, Settings()
        )
        self.key = ""
        self.status = Status.PENDING
        self.before_suspension = Status.PENDING
        self.has_begun = False
        self.ended_while_suspended: str = ""
        self.step = 0
        self.live: dict[str, int] = {}
        self.succeeded: list[int] = []
        self.callbacks_sent: int = 0

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.last_statuses[self.status] += 1

        async def close() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await self.port.aclose()

        self.wait(close())
        self.loop.close()

    @initialize()
    def create(self) -> None:
        self.key = self.wait(self.flows.creation.chain([f"t{index}" for index in range(STEPS)], error=["callback"])).key

    def act(self, action: Transition) -> None:
        """The action leads to what the table says, or is refused where the table has no entry."""
        work = getattr(self.flows.lifecycle, action)
        try:
            expected = after(self.status, action)
        except IllegalTransitionError:
            try:
                self.wait(work(self.key))
            except IllegalTransitionError:
                return
            raise AssertionError(f"{action} of {self.status} was not refused") from None
        if action == "suspend" and self.status is not Status.SUSPENDED:
            self.before_suspension = self.status
        if action == "resume" and self.status is Status.SUSPENDED:
            expected = Status.ACTIVE if self.has_begun else self.before_suspension
            if self.ended_while_suspended:
                expected = self.conclude(self.ended_while_suspended)
                self.ended_while_suspended = ""
        if action == "interrupt" and self.has_begun and self.status is not Status.INTERRUPTED:
            self.callbacks_sent += 1
        self.status = Status(self.wait(work(self.key)))
        assert self.status is expected

    def conclude(self, how: str) -> Status:
        """Update the model with the end of the current step."""
        if how == "failed":
            self.callbacks_sent += 1
            return Status.FAILED
        return Status.DONE if self.step == STEPS else Status.ACTIVE

    @rule()
    def suspend(self) -> None:
        self.act("suspend")

    @rule()
    def resume(self) -> None:
        self.act("resume")

    @rule()
    def interrupt(self) -> None:
        self.act("interrupt")

    @rule()
    def start(self) -> None:
        """Starting is legal unless it was interrupted before; a second start changes nothing."""
        try:
            self.wait(self.flows.start(self.key))
        except IllegalTransitionError:
            assert self.status is Status.INTERRUPTED
            assert not self.has_begun
            return
        if not self.has_begun:
            self.has_begun = True
            if self.status is Status.PENDING:
                self.status = Status.ACTIVE

    @precondition(lambda self: self.hatchet.queue)
    @rule(target=running, index=st.integers(0, 5))
    def arrive(self, index: int) -> Any:
        """A worker gets any queued run; it may execute it only if it is the current step's and nothing holds it."""
        queue = self.hatchet.queue
        run = queue[index % len(queue)]
        queue.remove(run)
        if run.request.task_name == "callback":
            return None
        run.attempt += 1
        admission = self.wait(admit(self.flows, run.request.signature_key, self.identity(run)))
        step = int(run.request.task_name[1:])
        if admission.verdict != "run":
            is_current = self.status is Status.ACTIVE and step == self.step and not self.live
            assert not is_current or self.is_outdated(run)
            run.state = "cancelled"
            return None
        assert self.status is Status.ACTIVE
        assert step == self.step
        assert step not in self.succeeded
        assert not self.live
        self.live[run.id] = step
        run.state = "running"
        return run

    @rule(run=running)
    def redelivered(self, run: Run | None) -> None:
        """The worker of a live run is gone, and Hatchet gives the attempt to another."""
        if run is None or run.id not in self.live:
            return
        run.attempt += 1
        admission = self.wait(admit(self.flows, run.request.signature_key, self.identity(run, "another")))
        if self.status is Status.ACTIVE:
            assert admission.verdict == "run"
            return
        assert admission.verdict == "skip"
        if self.status is Status.SUSPENDED:
            del self.live[run.id]  # held: it is sent again at resume

    @precondition(lambda self: self.hatchet.runs)
    @rule(index=st.integers(0, 20))
    def duplicated(self, index: int) -> None:
        """A reconciler sends the same run a second time."""
        runs = list(self.hatchet.runs.values())
        self.wait(self.hatchet.dispatch([runs[index % len(runs)].request]))

    @rule(run=consumes(running), fails=st.sampled_from([False, False, True]), times=st.integers(1, 2))
    def end(self, run: Run | None, fails: bool, times: int) -> None:
        """The task function ends and is settled, perhaps twice because an answer was lost."""
        if run is None or run.id not in self.live:
            return
        step = self.live.pop(run.id)
        error = FailureRecord(type="ValueError", task=f"t{step}", at=datetime.now(UTC)) if fails else None
        for _ in range(times):
            self.wait(
                self.flows.settle(
                    run.request.signature_key,
                    self.identity(run),
                    AttemptOutcome("failed" if fails else "succeeded", result_json=f'{{"step": {step}}}', error=error),
                )
            )
        if self.status is Status.INTERRUPTED:
            return
        how = "failed" if fails else "succeeded"
        if not fails:
            self.succeeded.append(step)
            self.step += 1
        if self.status is Status.SUSPENDED:
            self.ended_while_suspended = how
        else:
            self.status = self.conclude(how)

    def is_outdated(self, run: Run) -> bool:
        """True if the same step was sent again since, as after suspend and resume."""
        epochs = [
            int(each.request.dedupe_key.rpartition("/")[2])
            for each in self.hatchet.runs.values()
            if each.request.signature_key == run.request.signature_key
        ]
        return int(run.request.dedupe_key.rpartition("/")[2]) < max(epochs)

    def identity(self, run: Run, worker: str = "worker") -> RunIdentity:
        return RunIdentity(run.id, "step", worker, run.attempt, run.request.dedupe_key)

    @invariant()
    def agrees(self) -> None:
        """Store and model agree, each callback was sent once, and the history follows the table."""
        if not self.key:
            return
        chain = self.wait(self.flows.load(self.key))
        assert chain.status is self.status
        assert len(self.succeeded) == len(set(self.succeeded))
        assert chain.step == self.step
        received = {run.request.dedupe_key for run in self.hatchet.runs.values() if run.request.task_name == "callback"}
        assert len(received) == self.callbacks_sent <= 1
        walk = [entry.status for entry in chain.history]
        for here, there in itertools.pairwise(walk):
            back = here is Status.SUSPENDED and there in {Status.PENDING, Status.ACTIVE}
            assert there in TRANSITIONS[here].values() or back
        assert all(status not in ENDED for status in walk[:-1])


def test_any_interleaving_follows_the_table(valkey: EmbeddedValkey) -> None:
    """Eighty random lives of a chain, up to forty events each."""
    Lifecycle.server, Lifecycle.last_statuses = valkey, Counter()
    lives = settings(
        max_examples=80,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.reuse, Phase.generate],  # a failing life is printed as it is: shrinking takes minutes
    )
    run_state_machine_as_test(Lifecycle, settings=lives)
    assert Lifecycle.last_statuses.total() >= 80
    assert len(Lifecycle.last_statuses) >= 3, "the lives differ too little to mean anything"
