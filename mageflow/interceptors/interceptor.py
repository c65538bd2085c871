"""`Interceptor`, one method per operation, and several of them composed as one.

This file owns the composition. It refuses to know what anybody does with the calls.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from mageflow.interceptors.flows import (
    CallbackSend,
    ClusterView,
    FlowFinish,
    FlowStart,
    FlowStep,
    RunResend,
    SwarmFill,
)
from mageflow.interceptors.locks import (
    Deadlock,
    DeadlockCheck,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockExpired,
    LockHold,
    LockWaiting,
)
from mageflow.interceptors.state import RedisCall, SignatureLoad, SignatureWrite
from mageflow.interceptors.tasks import Attempt, Enqueue, Stagger, TimeoutExtension

__all__ = ["Interceptor", "InterceptorChain"]

_NOTHING: AbstractContextManager[None] = nullcontext()


class Interceptor:
    """Stand around what mageflow does. Override the operations of interest; the others cost nothing."""

    def attempt(self, call: Attempt) -> AbstractContextManager[None]:
        """Around one attempt of a task, from entry into the wrapper until it is settled."""
        return _NOTHING

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        """Around the user's function alone, with its dependencies, without stagger, loading and settling."""
        return _NOTHING

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        """Around handing runs to Hatchet."""
        return _NOTHING

    def stagger(self, call: Stagger) -> AbstractContextManager[None]:
        """Around the extension and the sleep of a staggered attempt."""
        return _NOTHING

    def extend_timeout(self, call: TimeoutExtension) -> AbstractContextManager[None]:
        """Around a request for more execution time."""
        return _NOTHING

    def load_signature(self, call: SignatureLoad) -> AbstractContextManager[None]:
        """Around the load of a signature."""
        return _NOTHING

    def write_signature(self, call: SignatureWrite) -> AbstractContextManager[None]:
        """Around the write of a signature."""
        return _NOTHING

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """Around a round trip to Redis."""
        return _NOTHING

    def start_flow(self, call: FlowStart) -> AbstractContextManager[None]:
        """Around the start of a chain or swarm."""
        return _NOTHING

    def step_flow(self, call: FlowStep) -> AbstractContextManager[None]:
        """For each step or item that is admitted; entered and left at once."""
        return _NOTHING

    def finish_flow(self, call: FlowFinish) -> AbstractContextManager[None]:
        """Once per flow, when it has ended; entered and left at once."""
        return _NOTHING

    def fill_swarm(self, call: SwarmFill) -> AbstractContextManager[None]:
        """Around handing items of a swarm to Hatchet."""
        return _NOTHING

    def send_callback(self, call: CallbackSend) -> AbstractContextManager[None]:
        """For each callback that was handed over or could not be; entered and left at once."""
        return _NOTHING

    def resend_run(self, call: RunResend) -> AbstractContextManager[None]:
        """For each run that is handed to Hatchet again because the one before is gone; entered and left at once."""
        return _NOTHING

    def view_cluster(self, call: ClusterView) -> AbstractContextManager[None]:
        """For each reading of the whole cluster; entered and left at once."""
        return _NOTHING

    def acquire_lock(self, call: LockAcquire) -> AbstractContextManager[None]:
        """Around one lock request, until it is granted or given up."""
        return _NOTHING

    def wait_for_lock(self, call: LockWaiting) -> AbstractContextManager[None]:
        """Once per request that has waited for a second; entered and left at once."""
        return _NOTHING

    def hold_lock(self, call: LockHold) -> AbstractContextManager[None]:
        """Around the time a lock is held."""
        return _NOTHING

    def lose_lease(self, call: LeaseLost) -> AbstractContextManager[None]:
        """When a lease was found to be lost; entered and left at once."""
        return _NOTHING

    def renew_lease(self, call: LeaseRenewal) -> AbstractContextManager[None]:
        """For each lease and renewal; entered and left at once."""
        return _NOTHING

    def check_deadlock(self, call: DeadlockCheck) -> AbstractContextManager[None]:
        """For each search for a cycle; entered and left at once."""
        return _NOTHING

    def resolve_deadlock(self, call: Deadlock) -> AbstractContextManager[None]:
        """Once per deadlock, in the process whose script found it; entered and left at once."""
        return _NOTHING

    def expire_lock(self, call: LockExpired) -> AbstractContextManager[None]:
        """For each lock taken from a dead owner; entered and left at once."""
        return _NOTHING


class InterceptorChain(Interceptor):
    """Several interceptors as one; the first is outermost."""

    def __init__(self, interceptors: Sequence[Interceptor] = ()) -> None:
        self._interceptors = tuple(interceptors)

    def _around(self, managers: Sequence[AbstractContextManager[None]]) -> AbstractContextManager[None]:
        if len(managers) == 1:
            return managers[0]
        return _entered(managers) if managers else _NOTHING

    def attempt(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.attempt`."""
        return self._around([each.attempt(call) for each in self._interceptors])

    def execute(self, call: Attempt) -> AbstractContextManager[None]:
        """See `Interceptor.execute`."""
        return self._around([each.execute(call) for each in self._interceptors])

    def enqueue(self, call: Enqueue) -> AbstractContextManager[None]:
        """See `Interceptor.enqueue`."""
        return self._around([each.enqueue(call) for each in self._interceptors])

    def stagger(self, call: Stagger) -> AbstractContextManager[None]:
        """See `Interceptor.stagger`."""
        return self._around([each.stagger(call) for each in self._interceptors])

    def extend_timeout(self, call: TimeoutExtension) -> AbstractContextManager[None]:
        """See `Interceptor.extend_timeout`."""
        return self._around([each.extend_timeout(call) for each in self._interceptors])

    def load_signature(self, call: SignatureLoad) -> AbstractContextManager[None]:
        """See `Interceptor.load_signature`."""
        return self._around([each.load_signature(call) for each in self._interceptors])

    def write_signature(self, call: SignatureWrite) -> AbstractContextManager[None]:
        """See `Interceptor.write_signature`."""
        return self._around([each.write_signature(call) for each in self._interceptors])

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """See `Interceptor.redis`."""
        return self._around([each.redis(call) for each in self._interceptors])

    def start_flow(self, call: FlowStart) -> AbstractContextManager[None]:
        """See `Interceptor.start_flow`."""
        return self._around([each.start_flow(call) for each in self._interceptors])

    def step_flow(self, call: FlowStep) -> AbstractContextManager[None]:
        """See `Interceptor.step_flow`."""
        return self._around([each.step_flow(call) for each in self._interceptors])

    def finish_flow(self, call: FlowFinish) -> AbstractContextManager[None]:
        """See `Interceptor.finish_flow`."""
        return self._around([each.finish_flow(call) for each in self._interceptors])

    def fill_swarm(self, call: SwarmFill) -> AbstractContextManager[None]:
        """See `Interceptor.fill_swarm`."""
        return self._around([each.fill_swarm(call) for each in self._interceptors])

    def send_callback(self, call: CallbackSend) -> AbstractContextManager[None]:
        """See `Interceptor.send_callback`."""
        return self._around([each.send_callback(call) for each in self._interceptors])

    def resend_run(self, call: RunResend) -> AbstractContextManager[None]:
        """See `Interceptor.resend_run`."""
        return self._around([each.resend_run(call) for each in self._interceptors])

    def view_cluster(self, call: ClusterView) -> AbstractContextManager[None]:
        """See `Interceptor.view_cluster`."""
        return self._around([each.view_cluster(call) for each in self._interceptors])

    def acquire_lock(self, call: LockAcquire) -> AbstractContextManager[None]:
        """See `Interceptor.acquire_lock`."""
        return self._around([each.acquire_lock(call) for each in self._interceptors])

    def wait_for_lock(self, call: LockWaiting) -> AbstractContextManager[None]:
        """See `Interceptor.wait_for_lock`."""
        return self._around([each.wait_for_lock(call) for each in self._interceptors])

    def hold_lock(self, call: LockHold) -> AbstractContextManager[None]:
        """See `Interceptor.hold_lock`."""
        return self._around([each.hold_lock(call) for each in self._interceptors])

    def lose_lease(self, call: LeaseLost) -> AbstractContextManager[None]:
        """See `Interceptor.lose_lease`."""
        return self._around([each.lose_lease(call) for each in self._interceptors])

    def renew_lease(self, call: LeaseRenewal) -> AbstractContextManager[None]:
        """See `Interceptor.renew_lease`."""
        return self._around([each.renew_lease(call) for each in self._interceptors])

    def check_deadlock(self, call: DeadlockCheck) -> AbstractContextManager[None]:
        """See `Interceptor.check_deadlock`."""
        return self._around([each.check_deadlock(call) for each in self._interceptors])

    def resolve_deadlock(self, call: Deadlock) -> AbstractContextManager[None]:
        """See `Interceptor.resolve_deadlock`."""
        return self._around([each.resolve_deadlock(call) for each in self._interceptors])

    def expire_lock(self, call: LockExpired) -> AbstractContextManager[None]:
        """See `Interceptor.expire_lock`."""
        return self._around([each.expire_lock(call) for each in self._interceptors])


@contextmanager
def _entered(managers: Sequence[AbstractContextManager[None]]) -> Generator[None]:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield
