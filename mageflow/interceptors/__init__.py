"""The public hooks: an `Interceptor` observes what mageflow does. mageflow's own telemetry is one.

`Interceptor` has one method for each operation it can wrap, and `Interceptor.event` for everything that only happens.
An operation is described by a *call*, a dataclass with its facts. Its fields marked *filled in* have their value when
the operation has ended. An event is a dataclass that inherits from `Event`.

Wraps are synchronous, except `Interceptor.worker`: an observer must not await inside an operation, and the same
``with`` serves coroutines, threads and the synchronous methods of the SDK.

An `Exception` that an interceptor raises is logged and ignored (`InterceptorChain`): it does not fail the task.
"""

from mageflow.interceptors.chain import InterceptorChain
from mageflow.interceptors.clients import ClientCreated, WorkerDraining, WorkerInfo
from mageflow.interceptors.events import Event, InterceptorFailed
from mageflow.interceptors.flows import (
    CallbackSend,
    ClusterView,
    FlowFinish,
    FlowStart,
    FlowStep,
    RunResend,
    SwarmFill,
    SwarmLeftOpen,
)
from mageflow.interceptors.interceptor import AsyncWrap, Interceptor, Wrap
from mageflow.interceptors.locks import (
    Deadlock,
    DeadlockCheck,
    LeaseLost,
    LeaseRenewal,
    LockAcquire,
    LockDeclared,
    LockExpired,
    LockHold,
    LockHolder,
    LockWaiting,
    ResourceKey,
)
from mageflow.interceptors.queue import QueueView, WaitingRuns
from mageflow.interceptors.state import (
    ClockReading,
    DamageFound,
    PendingSettlements,
    RedisCall,
    RedisOutage,
    SignatureLoad,
    SignatureWrite,
)
from mageflow.interceptors.tasks import (
    Attempt,
    EarlierAttempts,
    Enqueue,
    EnqueueItem,
    ExtendTimeout,
    OutcomeConfirmed,
    RunUnserved,
    Stagger,
    TaskDeclared,
    TaskInfo,
    TimeoutExtension,
    current_attempt,
)

__all__ = [
    "AsyncWrap",
    "Attempt",
    "CallbackSend",
    "ClientCreated",
    "ClockReading",
    "ClusterView",
    "DamageFound",
    "Deadlock",
    "DeadlockCheck",
    "EarlierAttempts",
    "Enqueue",
    "EnqueueItem",
    "Event",
    "ExtendTimeout",
    "FlowFinish",
    "FlowStart",
    "FlowStep",
    "Interceptor",
    "InterceptorChain",
    "InterceptorFailed",
    "LeaseLost",
    "LeaseRenewal",
    "LockAcquire",
    "LockDeclared",
    "LockExpired",
    "LockHold",
    "LockHolder",
    "LockWaiting",
    "OutcomeConfirmed",
    "PendingSettlements",
    "QueueView",
    "RedisCall",
    "RedisOutage",
    "ResourceKey",
    "RunResend",
    "RunUnserved",
    "SignatureLoad",
    "SignatureWrite",
    "Stagger",
    "SwarmFill",
    "SwarmLeftOpen",
    "TaskDeclared",
    "TaskInfo",
    "TimeoutExtension",
    "WaitingRuns",
    "WorkerDraining",
    "WorkerInfo",
    "Wrap",
    "current_attempt",
]
