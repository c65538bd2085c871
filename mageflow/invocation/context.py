"""The port for what one attempt needs of Hatchet. ``mageflow.hatchet.compat`` implements it over the SDK.

Words, in this room and everywhere above it:

- *attempt*: always the `mageflow.interceptors.Attempt` object. The number of an attempt is ``attempt_number``.
- *message*: the input of a task as a Python object, validated by the task's input model.
- *input_json*: the input of a run as Hatchet carries it, the JSON text of an object.
- *message_json*: JSON text of the message that a chain or swarm was started with.
- *task_run_id*: Hatchet's id of one task within a workflow run. It is the same for every attempt.
- *step*: a step of a chain, and nothing else.
"""

from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Final, Protocol

from mageflow.types import WorkflowPart

__all__ = ["STATE_KEYWORD", "AttemptContext"]

STATE_KEYWORD: Final = "_mageflow_state"
"""The keyword in which the SDK hands the state of an attempt to the task's function, beside its dependencies.

The SDK runs synchronous functions in a thread without the caller's context variables; a keyword arrives in both.
"""


class AttemptContext(Protocol):
    """Hatchet's context of one attempt, with the operations that the runner needs."""

    workflow_run_id: str
    task_run_id: str
    worker_id: str
    attempt_number: int
    """From 1."""
    max_attempts: int
    """Retries plus one."""
    parent_task_id: str
    """Hatchet's id of the task that sent the run; empty if none did."""
    priority: int
    """Hatchet's priority of the run: 1 low, 2 medium, 3 high."""
    metadata: dict[str, Any]
    """The additional metadata of the run; a copy."""
    batch_size: int
    """How many items a batch attempt carries; 1 for other tasks."""
    member_ids: tuple[str, ...]
    """The task run ids of the items of a batch; empty for other tasks."""
    is_resumed: bool
    """True when a durable task continues after an eviction and its body replays what it did before."""
    variables: Context
    """The context variables of the attempt when its function starts: a copy, in which a synchronous function runs."""

    @property
    def workflow_part(self) -> WorkflowPart:
        """What the task is in its run. The end of one of several tasks is not the end of the run."""
        ...

    @property
    def workflow_name(self) -> str:
        """Declared name of the workflow that runs. A stand-alone task can be a task of other workflows too."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether the engine sent the cancel signal to this attempt."""
        ...

    def cancel_flag(self) -> Callable[[], bool]:
        """Reads `is_cancelled`. It does not hold this object, which holds the attempt by its `variables`."""
        ...

    def message(self) -> Any:
        """The input as the task's function gets it.

        Raises:
            pydantic.ValidationError: The input does not validate.
        """
        ...

    def input_json(self) -> str:
        """The input as Hatchet carries it: the JSON text of an object."""
        ...

    def observe(
        self, on_cancel: Callable[[], None], around_refresh: Callable[[float, Callable[[], None]], None]
    ) -> None:
        """Observe what the engine and the user do with the attempt. Call it once, on the event loop.

        The runs that a durable task spawns are recorded and stamped like any other enqueue from then on.

        Args:
            on_cancel: Called once, on the running event loop, when the cancel signal arrives.
            around_refresh: Called as ``around_refresh(seconds, request)`` for the user's own ``ctx.refresh_timeout``;
                it must call ``request``.
        """
        ...

    def release(self) -> None:
        """End what `observe` began. Otherwise the attempt and its input stay in memory until Python searches cycles."""
        ...

    async def extend_timeout(self, seconds: float) -> float:
        """Request more execution time, to the millisecond. Returns the engine's new deadline in epoch seconds.

        Raises:
            TimeoutExtensionError: The engine refused, or did not answer within five seconds.
        """
        ...

    def inherit_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Set the metadata that the SDK adds to runs spawned from here (in this context or thread only)."""
        ...

    async def cancel_run(self) -> None:
        """Cancel the attempt's own task run in the engine.

        Raises:
            DispatchError: The engine refused or could not be reached.
        """
        ...

    def sendable(self, output: object) -> object:
        """The output in a form of which the SDK loses nothing, where the function has no return annotation."""
        ...

    def dump_output(self, output: object) -> str:
        """The output as the JSON text that the SDK sends; ``{}`` for an empty one.

        Raises:
            hatchet_sdk.exceptions.IllegalTaskOutputError: The output cannot be serialised, or is larger than the SDK
                may send. In the second case Hatchet makes no further attempt.
        """
        ...

    def load_output(self, output_json: str) -> Any:
        """An output that was stored earlier, as the object from which the SDK makes the same JSON again."""
        ...
