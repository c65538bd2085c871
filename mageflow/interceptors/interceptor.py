"""`Interceptor`: the methods a program overrides to observe what mageflow does."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import TypeAlias

from mageflow.interceptors.clients import WorkerInfo
from mageflow.interceptors.events import Event
from mageflow.interceptors.flows import FlowStart, SwarmFill
from mageflow.interceptors.locks import LockAcquire, LockHold
from mageflow.interceptors.state import RedisCall, SignatureLoad, SignatureWrite
from mageflow.interceptors.tasks import Attempt, Enqueue, Stagger, TimeoutExtension

__all__ = ["AsyncWrap", "Interceptor", "Wrap"]

Wrap: TypeAlias = AbstractContextManager[object]
"""What a wrap returns: a synchronous context manager around the operation. What it yields is ignored."""

AsyncWrap: TypeAlias = AbstractAsyncContextManager[object]
"""What `Interceptor.worker` returns: an asynchronous context manager. What it yields is ignored."""


_NOTHING: nullcontext[None] = nullcontext()


class Interceptor:
    """Observes what mageflow does. Override the methods of interest; the others cost nothing.

    Every method but `event` wraps one kind of operation. It gets the *call*, the facts of that operation, and returns
    a context manager. mageflow enters it before the operation and leaves it afterwards, with the operation's exception
    if there was one. Fields of a call that are marked *filled in* have their value when the context manager is left.

    A wrap may be entered in one thread or context and left in another one only where its method says so.
    """

    def attempt(self, call: Attempt) -> Wrap:
        """Wrap one attempt of a task, from its arrival on the worker until its outcome is stored.

        On the event loop of the worker. Only for a batch task with a synchronous function: in the function's thread.
        """
        return _NOTHING

    def execute(self, call: Attempt) -> Wrap:
        """Wrap the task's function and its dependencies, without stagger, signature load and settlement.

        In the same place as `attempt`. Where the function is synchronous, it runs in a thread meanwhile.
        """
        return _NOTHING

    def execute_in_thread(self, call: Attempt) -> Wrap:
        """Wrap a synchronous task function in its thread, inside `execute`.

        It runs in a copy of the attempt's context, with the function: variables set in `attempt` or `execute` are
        visible, and what is set here or by the function is gone afterwards.
        """
        return _NOTHING

    def enqueue(self, call: Enqueue) -> Wrap:
        """Wrap one call that hands runs to Hatchet. Write into `EnqueueItem.metadata` what should travel with a run."""
        return _NOTHING

    def stagger(self, call: Stagger) -> Wrap:
        """Wrap the timeout extension and the sleep of a staggered attempt."""
        return _NOTHING

    def extend_timeout(self, call: TimeoutExtension) -> Wrap:
        """Wrap one request to Hatchet for more execution time."""
        return _NOTHING

    def load_signature(self, call: SignatureLoad) -> Wrap:
        """Wrap the load of a signature."""
        return _NOTHING

    def write_signature(self, call: SignatureWrite) -> Wrap:
        """Wrap the write of a signature."""
        return _NOTHING

    def redis(self, call: RedisCall) -> Wrap:
        """Wrap one round trip to Redis. It is left with the error of redis-py, wrapped in a `StoreError`."""
        return _NOTHING

    def start_flow(self, call: FlowStart) -> Wrap:
        """Wrap the script that starts a chain or swarm."""
        return _NOTHING

    def fill_swarm(self, call: SwarmFill) -> Wrap:
        """Wrap the call that hands further items of a swarm to Hatchet."""
        return _NOTHING

    def acquire_lock(self, call: LockAcquire) -> Wrap:
        """Wrap one lock request, from the call until it is granted or given up."""
        return _NOTHING

    def hold_lock(self, call: LockHold) -> Wrap:
        """Wrap the time in which one lock is held. May be left in another context than it was entered in."""
        return _NOTHING

    def worker(self, call: WorkerInfo) -> AsyncWrap:
        """Wrap the life of one worker, on the event loop that runs its tasks; the only asynchronous wrap.

        Entered before the first task is assigned, and left when the last one has ended. The worker waits for both.
        """
        return _NOTHING

    def event(self, event: Event) -> None:
        """Get everything that happened, once each. Select by type, for example with ``match``."""
