"""Clients of Hatchet's REST interface whose requests end.

A request of the SDK waits for ever for a peer that has gone without a word: a network that drops a connection, a
machine that was switched off. It blocks a thread of the event loop's pool, which has a few. When all of them wait,
nothing of the process reaches Hatchet any more. The clients that users see stay as the SDK makes them.
"""

from copy import copy
from typing import Any, Final, TypeVar

from hatchet_sdk.clients.rest.api_client import ApiClient
from hatchet_sdk.clients.v1.api_client import BaseRestClient

__all__ = ["bounded"]

_LIMIT_SECONDS: Final = 30.0

_Rest = TypeVar("_Rest", bound=BaseRestClient)


def bounded(client: _Rest) -> _Rest:
    """A copy of a client whose requests fail when Hatchet has not answered for 30 s."""
    copied = copy(client)
    vars(copied)["client"] = lambda: _BoundedApiClient(client.api_config)
    return copied


class _BoundedApiClient(ApiClient):
    def call_api(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_request_timeout") is None:
            kwargs["_request_timeout"] = _LIMIT_SECONDS
        return super().call_api(*args, **kwargs)
