"""Goes on without a hook that the installed SDK has no place for: a newer one may have moved its private names."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version

from mageflow.interceptors import Interceptor, InterceptorFailed

__all__ = ["Hooks"]

_log = logging.getLogger("mageflow.hatchet")


class Hooks:
    """The hooks of one client. What cannot be installed is logged once and counted once.

    Args:
        interceptor: Gets an `InterceptorFailed` for each hook that is missing, which telemetry counts in
            ``mageflow_telemetry_errors_total{signal="interceptor"}``.
    """

    def __init__(self, interceptor: Interceptor) -> None:
        self._interceptor = interceptor
        self._missing: set[str] = set()

    @contextmanager
    def installing(self, hook: str, without: str) -> Generator[None]:
        """Install a hook in this block, or go on without it if a name of the SDK is missing.

        Args:
            hook: A name for the log and the event.
            without: What does not work without it.
        """
        try:
            yield
        except AttributeError as error:
            if hook in self._missing:
                return
            self._missing.add(hook)
            _log.warning(
                "hatchet-sdk %s has moved a name that mageflow needs (%s): %s. Tasks run. Use an older hatchet-sdk "
                "until mageflow supports this one.",
                version("hatchet-sdk"),
                error,
                without,
            )
            self._interceptor.event(InterceptorFailed("hatchet-sdk", hook, error))

    def has(self, hook: str) -> bool:
        """Whether the hook could be installed wherever it was tried so far."""
        return hook not in self._missing
