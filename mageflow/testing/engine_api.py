"""The REST API of the local engine, as the fixtures use it."""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, Protocol, cast

__all__ = ["Engine", "Handshake", "RunningEngine", "rows_of"]

_ANSWER_SECONDS = 10.0


class Handshake(Protocol):
    """The part of the engine's handshake that a request needs."""

    @property
    def token(self) -> str:
        """The bearer token."""
        ...

    @property
    def tenant_id(self) -> str:
        """The tenant in every path."""
        ...

    @property
    def api_url(self) -> str:
        """Where the API listens, without a path."""
        ...


class RunningEngine(Protocol):
    """An engine that answers requests."""

    @property
    def handshake(self) -> Handshake:
        """Where it listens, with its token."""
        ...


class Engine(RunningEngine, Protocol):
    """The part of `mageflow.engine.LocalEngine` that the start of a worker needs."""

    def environment(self) -> dict[str, str]:
        """The variables that lead a client to it."""
        ...


def rows_of(handshake: Handshake, path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Read the rows of a list. Blocks, for 10 seconds at the most.

    Args:
        handshake: Where the engine listens, with its token.
        path: The path, with ``{tenant}`` for the tenant's id.
        query: Filters and the page.

    Returns:
        The field ``rows`` of the answer.
    """
    address = f"{handshake.api_url}{path.format(tenant=handshake.tenant_id)}?{urllib.parse.urlencode(query or {})}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {handshake.token}"})  # noqa: S310 - the address of our own engine
    with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:  # noqa: S310 - as above
        return cast("list[dict[str, Any]]", json.load(response)["rows"])
