"""What a worker needs before it starts: Hatchet answers and takes the token, Redis answers, the names are right."""

import asyncio
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mageflow.errors import MageflowError, RedisNotConfiguredError

if TYPE_CHECKING:
    from mageflow.client import Mageflow

__all__ = ["address_trouble", "troubles_of"]

_CONNECT_SECONDS: Final = 5.0
_REDIS_SECONDS: Final = 10.0
_REFUSED: Final = (401, 403)


def troubles_of(client: "Mageflow") -> Iterator[str]:
    """What keeps a worker of this client from its work, one sentence each, as they are found.

    Connects to Hatchet and to Redis, at most 5 and 10 seconds each. Changes nothing.
    """
    yield from _names(client)
    trouble = address_trouble(client.config.host_port)
    if trouble is not None:
        yield trouble
    else:
        yield from _token(client)
    yield from _redis(client)


def _names(client: "Mageflow") -> Iterator[str]:
    if not client.declared_workflows:
        yield (
            "the client has no tasks: declare them with @client.task in the module, or import the modules that do, so "
            "that the worker has something to run"
        )
    for name in client.repeated_names:
        yield f"two tasks are named {name!r}, and Hatchet would run one of them only: give each a name of its own"


def address_trouble(host_port: str) -> str | None:
    """Why Hatchet cannot be reached at this address, with the mend. None if a connection is accepted."""
    host, _, port = host_port.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS):
            return None
    except (OSError, ValueError, OverflowError) as error:
        reason = "no answer within 5 s" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        is_local = host in {"127.0.0.1", "localhost", "::1"}
        mend = (
            "start the engine (`mageflow engine --redis`), or set HATCHET_CLIENT_HOST_PORT to the address of yours"
            if is_local
            else "check the network, and HATCHET_CLIENT_HOST_PORT or the token, which hold the address"
        )
        return f"Hatchet does not answer at {host_port} ({reason}): {mend}"


def _token(client: "Mageflow") -> Iterator[str]:
    """A token that is refused. A REST API that cannot be reached from here is no trouble: workers use gRPC."""
    config = client.config
    request = urllib.request.Request(  # noqa: S310 - the user's own Hatchet
        f"{config.server_url.rstrip('/')}/api/v1/tenants/{config.tenant_id}/worker",
        headers={"Authorization": f"Bearer {config.token}"},
    )
    try:
        # Not by the SDK's client: it has no time limit, and a firewall may drop what is sent to the REST API.
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):  # noqa: S310 - as above
            return
    except urllib.error.HTTPError as error:
        if error.code in _REFUSED:
            yield (
                f"Hatchet at {config.server_url} refuses the token ({error.code}): set HATCHET_CLIENT_TOKEN "
                "to a token of this Hatchet"
            )
    except (OSError, ValueError):
        return


def _redis(client: "Mageflow") -> Iterator[str]:
    async def ask() -> None:
        try:
            await asyncio.wait_for(client.signature_counts(), _REDIS_SECONDS)
        finally:
            await client.aclose()

    # The sentence that is printed says more than the warning of the client.
    logging.disable(logging.WARNING)
    try:
        asyncio.run(ask())
    except RedisNotConfiguredError:
        return
    except TimeoutError:
        yield "Redis does not answer within 10 s: check MAGEFLOW_REDIS_URL and the network"
    except MageflowError as error:
        yield str(error)
    finally:
        logging.disable(logging.NOTSET)
