"""The dependencies of one attempt, resolved inside of what mageflow does around it."""

from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import Any

from mageflow.invocation import STATE_KEYWORD, AttemptContext

__all__ = ["InnerDependencies"]


class InnerDependencies:
    """Enters ``outer``, then the dependencies. Gives the keywords for the task's function.

    A class with slots, because it runs around every attempt: an asynchronous generator takes five times as long.

    Args:
        context: Gets the context variables as they are inside.
        outer: What is around the attempt. It gives the value of the keyword `STATE_KEYWORD`.
        dependencies: The SDK's; None for a function that has none.
    """

    __slots__ = ("_context", "_dependencies", "_outer")

    def __init__(
        self,
        context: AttemptContext,
        outer: AbstractAsyncContextManager[object],
        dependencies: AbstractAsyncContextManager[dict[str, Any]] | None,
    ) -> None:
        self._context = context
        self._outer = outer
        self._dependencies = dependencies

    async def __aenter__(self) -> dict[str, Any]:
        """Enter both."""
        keywords: dict[str, Any] = {STATE_KEYWORD: await self._outer.__aenter__()}
        if self._dependencies is not None:
            try:
                keywords.update(await self._dependencies.__aenter__())
            except BaseException as error:
                await self._outer.__aexit__(type(error), error, error.__traceback__)
                raise
        self._context.variables = copy_context()
        return keywords

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave both."""
        if self._dependencies is not None:
            try:
                await self._dependencies.__aexit__(kind, error, traceback)
            except BaseException as another:
                await self._outer.__aexit__(type(another), another, another.__traceback__)
                raise
        await self._outer.__aexit__(kind, error, traceback)
