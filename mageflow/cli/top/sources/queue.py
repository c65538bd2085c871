"""What waits in Hatchet for a worker, read from Hatchet itself where no worker has a metric of it."""

import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mageflow.interceptors import WaitingRuns

if TYPE_CHECKING:
    from hatchet_sdk.features.metrics import MetricsClient

__all__ = ["HatchetQueue"]

_INTERVAL_SECONDS = 2.0
"""Between two readings: each is one request."""


class HatchetQueue:
    """Reads the queue of Hatchet, or of the local engine, with the token of the environment.

    Without a token it reads nothing.
    """

    def __init__(self) -> None:
        self._has_token = bool(os.environ.get("HATCHET_CLIENT_TOKEN"))
        self._client: MetricsClient | None = None
        self._last: Mapping[str, WaitingRuns] | None = None
        self._read_at = float("-inf")

    async def read(self) -> Mapping[str, WaitingRuns] | None:
        """Runs that no worker has started, by task; at most two seconds old. None without a token.

        Raises:
            DispatchError: Hatchet could not be reached or refused.
            ConfigurationError: The token is not one.
        """
        if not self._has_token:
            return None
        if time.monotonic() - self._read_at >= _INTERVAL_SECONDS:
            self._read_at, self._last = time.monotonic(), None
            from mageflow.hatchet import waiting_runs

            if self._client is None:
                self._client = await asyncio.to_thread(_client)
            self._last = await waiting_runs(self._client, ())
        return self._last


def _client() -> "MetricsClient":
    from hatchet_sdk.config import ClientConfig
    from hatchet_sdk.features.metrics import MetricsClient
    from pydantic import ValidationError

    from mageflow.errors import ConfigurationError

    try:
        return MetricsClient(ClientConfig())
    except ValidationError as error:
        raise ConfigurationError("HATCHET_CLIENT_TOKEN is not a token of Hatchet: mageflow doctor says more") from error
