"""Every error mageflow raises, in one tree.

::

    MageflowError
    ├── ConfigurationError            the program or its settings must change; raised early
    │   ├── DecorationError           a decorator cannot work on this function
    │   ├── ForkedProcessError        Hatchet was called before the fork, and again in the child
    │   ├── RedisNotConfiguredError   an operation needs Redis and none was given
    │   └── SdkFeatureError           the installed hatchet-sdk is too old for it
    ├── SignatureError
    │   ├── SignatureNotFoundError    expired, removed or never stored
    │   ├── SignatureInvalidError     the stored document does not validate; it is never executed
    │   │   └── SignatureVersionError another release of mageflow has stored it
    │   ├── DuplicateRunError         the run has the metadata of the run that owns the step
    │   └── IllegalTransitionError    the lifecycle does not allow this step
    │       └── SignatureCopiedError  the signature is part of several flows: name the member
    ├── FlowError
    │   ├── FlowDefinitionError       the chain or swarm cannot work as defined
    │   ├── FlowFailedError           the awaited flow did not succeed
    │   ├── SwarmClosedError          a task was added after the swarm was closed
    │   └── SwarmFullError            a task was added beyond ``max_task_allowed``
    ├── LockError
    │   ├── LockTimeoutError          not granted within the time allowed       (retryable)
    │   ├── LockLostError             the lease ended before the work did       (retryable)
    │   └── DeadlockError             this request closed a cycle and is the victim (retryable)
    ├── StoreError                    Redis refused an operation                (retryable)
    │   ├── StoreRefusedError         wrong password, unknown command
    │   └── StoreUnavailableError     Redis could not be reached, or refuses for now (retryable)
    ├── DispatchError                 Hatchet could not be reached or refused   (retryable)
    │   └── MessageTooLargeError      the input of a run is larger than Hatchet takes
    ├── TimeoutExtensionError         the engine did not extend a task's timeout
    └── EngineError                   the local engine, or a worker that a test starts beside it, failed
        ├── EngineStartError          its process ended, or was not ready in time
        └── EngineNotRunningError     it was used outside its ``with`` block

The local engine keeps the errors it answers requests with in ``mageflow.engine.errors``, beside the gRPC and HTTP
status of each. They are kinds of EngineError and stay in the engine's process.

Each error builds its message from typed attributes, so no caller parses text. ``retryable`` is True if the same call
may succeed later without a change to the program. The cause is kept with ``raise ... from``. This package imports
nothing else of mageflow.
"""

from mageflow.errors.configuration import (
    ConfigurationError,
    DecorationError,
    ForkedProcessError,
    MageflowError,
    RedisNotConfiguredError,
    SdkFeatureError,
)
from mageflow.errors.flows import (
    DuplicateRunError,
    FlowDefinitionError,
    FlowError,
    FlowFailedError,
    IllegalTransitionError,
    SignatureCopiedError,
    SignatureError,
    SignatureInvalidError,
    SignatureNotFoundError,
    SignatureVersionError,
    SwarmClosedError,
    SwarmFullError,
)
from mageflow.errors.locks import CycleEdge, DeadlockError, LockError, LockLostError, LockTimeoutError
from mageflow.errors.services import (
    DispatchError,
    EngineError,
    EngineNotRunningError,
    EngineStartError,
    MessageTooLargeError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    TimeoutExtensionError,
)

__all__ = [
    "ConfigurationError",
    "CycleEdge",
    "DeadlockError",
    "DecorationError",
    "DispatchError",
    "DuplicateRunError",
    "EngineError",
    "EngineNotRunningError",
    "EngineStartError",
    "FlowDefinitionError",
    "FlowError",
    "FlowFailedError",
    "ForkedProcessError",
    "IllegalTransitionError",
    "LockError",
    "LockLostError",
    "LockTimeoutError",
    "MageflowError",
    "MessageTooLargeError",
    "RedisNotConfiguredError",
    "SdkFeatureError",
    "SignatureCopiedError",
    "SignatureError",
    "SignatureInvalidError",
    "SignatureNotFoundError",
    "SignatureVersionError",
    "StoreError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "SwarmClosedError",
    "SwarmFullError",
    "TimeoutExtensionError",
]

# Spans and logs name an error by the place that programs import it from.
for _name in __all__:
    globals()[_name].__module__ = __name__
