"""The runner's `Host` port over the SDK."""

import functools
from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

import grpc
from hatchet_sdk import Context
from hatchet_sdk.exceptions import NonRetryableException

from mageflow.errors import DispatchError, TimeoutExtensionError
from mageflow.hatchet import compat, durations
from mageflow.hatchet.enqueue import Enqueuer
from mageflow.hatchet.errors_map import as_non_retryable

__all__ = ["SdkHost"]

_EXTENSION_TIMEOUT_SECONDS = 5.0
"""The SDK waits 30 s; by then a task that asked for time has lost more than it wanted to gain."""


class SdkHost:
    """Implements `mageflow.invocation.Host`; see there for what each method promises."""

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer

    def is_mock(self, ctx: Context) -> bool:
        """See `mageflow.invocation.Host`."""
        return compat.is_mock(ctx)

    def is_first_invocation(self, ctx: Context) -> bool:
        """See `mageflow.invocation.Host`."""
        return compat.invocation_count(ctx) == 1

    def batch_size(self, ctx: Context) -> int:
        """See `mageflow.invocation.Host`."""
        return compat.batch_size(ctx)

    def message(self, task: Any, ctx: Context) -> Any:
        """See `mageflow.invocation.Host`."""
        return compat.message(task, ctx)

    def message_json(self, ctx: Context) -> str:
        """See `mageflow.invocation.Host`."""
        return compat.message_json(ctx)

    def on_cancel(self, ctx: Context, callback: Callable[[], None]) -> None:
        """See `mageflow.invocation.Host`."""
        compat.on_cancel(ctx, callback)

    def observe_refresh(self, ctx: Context, around: Callable[[float, Callable[[], None]], None]) -> None:
        """See `mageflow.invocation.Host`."""

        def observe(duration: str, request: Callable[[], None]) -> None:
            try:
                amount = durations.seconds(duration)
            except ValueError:
                request()  # the engine will say what is wrong with it
            else:
                around(amount, request)

        compat.observe_refresh(ctx, observe)

    def observe_durable_spawns(self, ctx: Any) -> None:
        """See `mageflow.invocation.Host`."""
        compat.observe_spawns(ctx, functools.partial(self._enqueuer.durable_spawn))

    async def extend_timeout(self, ctx: Context, seconds: float) -> float:
        """See `mageflow.invocation.Host`."""
        try:
            response = await compat.aio_refresh_timeout(
                ctx, durations.milliseconds(seconds), timeout_seconds=_EXTENSION_TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            raise TimeoutExtensionError(_describe(error)) from error
        return response.timeout_at.ToDatetime(tzinfo=UTC).timestamp()

    def inherit_metadata(self, metadata: Mapping[str, Any]) -> None:
        """See `mageflow.invocation.Host`."""
        compat.set_inherited_metadata(metadata)

    async def cancel_run(self, ctx: Context) -> None:
        """See `mageflow.invocation.Host`."""
        try:
            await ctx.aio_cancel()
        except Exception as error:
            raise DispatchError(ctx.task_name, f"the run could not be cancelled: {error}") from error

    def is_non_retryable(self, error: BaseException) -> bool:
        """See `mageflow.invocation.Host`."""
        return isinstance(error, NonRetryableException)

    def non_retryable(self, error: Exception) -> Exception:
        """See `mageflow.invocation.Host`."""
        return as_non_retryable(error)

    def dump_output(self, task: Any, output: object) -> str:
        """See `mageflow.invocation.Host`."""
        return compat.dump_output(task, output)

    def load_output(self, task: Any, output_json: str) -> Any:
        """See `mageflow.invocation.Host`."""
        return compat.load_output(task, output_json)


def _describe(error: grpc.RpcError) -> str:
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    details = error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else str(error)
    return f"{code.name if code else type(error).__name__}: {details}"
