"""The private names of the SDK's clients over gRPC.

``tests/contract/test_sdk_private_names.py`` fails when a new SDK version moves one of the names. The others are in
the other files whose names end in ``compat.py``.
"""

from collections.abc import Callable
from typing import Any, cast

from hatchet_sdk.client import Client

# pyright: reportPrivateUsage=false

__all__ = ["has_used_grpc", "refuse_grpc"]


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
