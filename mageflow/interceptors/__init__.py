"""The one extension seam: what happens to a task, and a place to stand around each of it.

An `Interceptor` has one method per operation. Each is given a *call*, the facts of that one operation, and returns
a context manager that is entered before the operation and left after it, with the operation's exception if there
was one. First listed is outermost. Everything mageflow knows about itself goes through here; its own telemetry is
the first and hardest customer.

Context managers are synchronous on purpose: an observer must not await, and the same ``with`` then serves
coroutines, threads and the synchronous methods of the SDK. Attributes marked *filled in* are set by the operation
before the block is left. An exception raised by an interceptor reaches the operation as if it had failed; mageflow's
own telemetry never raises.

This room owns the calls and the composition. It refuses to know what anybody does with them.
"""

from mageflow.interceptors.flows import (
    CallbackSend,
    ClusterView,
    FlowFinish,
    FlowStart,
    FlowStep,
    RunResend,
    SwarmFill,
)
from mageflow.interceptors.interceptor import Interceptor, InterceptorChain
from mageflow.interceptors.locks import (
    Deadlock,
    DeadlockCheck,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockExpired,
    LockHold,
    LockParty,
    LockWaiting,
    ResourceKey,
)
from mageflow.interceptors.state import RedisCall, SignatureLoad, SignatureWrite
from mageflow.interceptors.tasks import (
    Attempt,
    Enqueue,
    EnqueueItem,
    ExtendTimeout,
    Stagger,
    TaskInfo,
    TimeoutExtension,
    current_attempt,
)

__all__ = [
    "Attempt",
    "CallbackSend",
    "ClusterView",
    "Deadlock",
    "DeadlockCheck",
    "Enqueue",
    "EnqueueItem",
    "ExtendTimeout",
    "FlowFinish",
    "FlowStart",
    "FlowStep",
    "Interceptor",
    "InterceptorChain",
    "LeaseLost",
    "LeaseRenewal",
    "LockAcquire",
    "LockExpired",
    "LockHold",
    "LockParty",
    "LockWaiting",
    "RedisCall",
    "ResourceKey",
    "RunResend",
    "SignatureLoad",
    "SignatureWrite",
    "Stagger",
    "SwarmFill",
    "TaskInfo",
    "TimeoutExtension",
    "current_attempt",
]
