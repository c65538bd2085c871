"""The private names of the SDK's clients over gRPC.

``tests/contract/test_sdk_private_names.py`` fails when a new SDK version moves one of the names. The others are in
the other files whose names end in ``compat.py``.
"""

import time
from collections.abc import Callable
from copy import copy
from typing import Any, TypeVar, cast

import grpc
from hatchet_sdk.client import Client
from hatchet_sdk.clients.admin import AdminClient

# pyright: reportPrivateUsage=false

__all__ = ["has_used_grpc", "refuse_grpc", "sending_within"]

_Admin = TypeVar("_Admin", bound=AdminClient)


def sending_within(admin: _Admin, seconds: float) -> _Admin:
    """A copy of a client whose sends end in ``TimeoutError`` when Hatchet has not taken them after this time.

    The time is for all attempts together that the SDK makes of one send (5 by default). The SDK sets no limit: against
    a Hatchet that holds the connection and is silent, a send of it waits for ever, and so does its thread of the pool.
    """
    copied = copy(admin)
    make = getattr(admin, "_get_or_create_v0_client", None)
    if make is not None:
        stub = _LimitedStub(make(), seconds)
        vars(copied)["_get_or_create_v0_client"] = lambda: stub
    return copied


class _LimitedStub:
    """A stub of gRPC whose calls share one limit in time."""

    def __init__(self, stub: Any, seconds: float) -> None:
        self._stub = stub
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._stub, name)

        def limited(*args: Any, **options: Any) -> Any:
            try:
                return call(*args, timeout=max(0.0, self._ends_at - time.monotonic()), **options)
            except grpc.RpcError as error:
                if time.monotonic() < self._ends_at:
                    raise
                # Not one of gRPC's errors: the SDK would try again.
                raise TimeoutError(f"Hatchet has not taken it within {self._seconds:g} s") from error

        return limited


def has_used_grpc(client: Client, *, only_asynchronous: bool) -> bool:
    """Whether a client has called Hatchet over gRPC."""
    stubs = [(client.event, "_aio_client"), (client.dispatcher, "aio_client"), (client.workflow_listener, "client")]
    if not only_asynchronous:
        stubs += [(client.admin, "client"), (client.admin, "v0_client")]
        stubs += [(client.event, "_client"), (client.dispatcher, "client")]
    return any(getattr(owner, name, None) is not None for owner, name in stubs)  # an older SDK lacks some


def refuse_grpc(client: Client, refuse: Callable[[str], None]) -> None:
    """Let every call of a client over gRPC call ``refuse``, which raises, with the name of the call."""
    stub = cast("Any", _RefusedStub(refuse))
    for owner, names in (
        (client.admin, ("client", "v0_client")),
        (client.event, ("_client", "_aio_client")),
        (client.dispatcher, ("client", "aio_client")),
        (client.workflow_listener, ("client",)),
    ):
        for name in names:
            _stubs_of_parent.append(vars(owner).get(name))
            setattr(owner, name, stub)
    # These make connections of their own, or wait for a task of the parent's loop.
    for owner, names in (
        (client.workflow_listener, ("subscribe",)),
        (client.listener, ("stream", "stream_by_run_id", "stream_by_additional_metadata")),
        (client.rate_limits, ("put", "pause")),
    ):
        for name in names:
            setattr(owner, name, getattr(stub, name))


_stubs_of_parent: list[Any] = []
"""Kept with their connections: to free one in a forked child wakes threads of gRPC that are not there, which may abort
the child (1.85: ``Mutex::Fer while waiting on Condition``)."""


class _RefusedStub:
    """In the place of a stub of gRPC: every call is refused."""

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self._refuse = refuse

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_options: self._refuse(name)
