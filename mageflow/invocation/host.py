"""What the runner needs of Hatchet, as ports: implemented by ``mageflow.hatchet`` over the SDK.

Nothing in this room imports the SDK, so what of it we depend on is written here, in one place.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["Host", "TaskContext"]


class TaskContext(Protocol):
    """Hatchet's context of one attempt, as far as this room looks at it."""

    @property
    def workflow_run_id(self) -> str:
        """The run the attempt belongs to."""
        ...

    @property
    def task_run_id(self) -> str:
        """The task run: the same for every attempt."""
        ...

    @property
    def worker_id(self) -> str:
        """The worker that runs it."""
        ...

    @property
    def attempt_number(self) -> int:
        """From 1."""
        ...

    @property
    def max_attempts(self) -> int:
        """Retries plus one."""
        ...

    @property
    def priority(self) -> int | None:
        """Hatchet's priority of the run, 1 to 3."""
        ...

    @property
    def additional_metadata(self) -> dict[str, Any]:
        """The live metadata object of the run; never written to."""
        ...

    @property
    def is_cancelled(self) -> bool:
        """Whether the engine asked the attempt to stop."""
        ...


class Host(Protocol):
    """What the runner asks of the SDK beyond its public context."""

    def is_mock(self, ctx: Any) -> bool:
        """Whether this is ``mock_run``: no engine, no telemetry, no state."""
        ...

    def is_first_invocation(self, ctx: Any) -> bool:
        """False when a durable task is resumed and its body replays what it did before."""
        ...

    def batch_size(self, ctx: Any) -> int:
        """How many items a batch attempt carries; 1 for other tasks."""
        ...

    def message(self, task: Any, ctx: Any) -> Any:
        """The run's input as the task's function gets it.

        Raises:
            pydantic.ValidationError: It does not validate.
        """
        ...

    def message_json(self, ctx: Any) -> str:
        """The run's input as it arrived: the JSON text of an object."""
        ...

    def on_cancel(self, ctx: Any, callback: Callable[[], None]) -> None:
        """Call ``callback`` on the event loop as soon as the engine's cancel signal arrives."""
        ...

    def observe_refresh(self, ctx: Any, around: Callable[[float, Callable[[], None]], None]) -> None:
        """Have the user's own ``ctx.refresh_timeout`` go through ``around(seconds, request)``."""
        ...

    def observe_durable_spawns(self, ctx: Any) -> None:
        """Have the runs a durable task spawns counted and stamped like any other enqueue."""
        ...

    async def extend_timeout(self, ctx: Any, seconds: float) -> float:
        """Ask for more execution time, to the millisecond; the engine's new deadline in epoch seconds.

        Raises:
            TimeoutExtensionError: The engine refused or could not be reached within five seconds.
        """
        ...

    def inherit_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Set what the SDK hands on to runs spawned from here (in this context or thread only)."""
        ...

    async def cancel_run(self, ctx: Any) -> None:
        """Cancel the attempt's own task run in the engine.

        Raises:
            DispatchError: The engine refused or could not be reached.
        """
        ...

    def is_non_retryable(self, error: BaseException) -> bool:
        """Whether the engine will not try again after this error, whatever the retries."""
        ...

    def non_retryable(self, error: Exception) -> Exception:
        """The same error, in a form after which the engine does not try again."""
        ...

    def dump_output(self, task: Any, output: object) -> str:
        """The result as the JSON text the SDK would send; ``{}`` for an empty one.

        Raises:
            hatchet_sdk.exceptions.IllegalTaskOutputError: The result cannot be serialised.
        """
        ...

    def load_output(self, task: Any, output_json: str) -> Any:
        """A result stored earlier, as the object the SDK would send again."""
        ...
