"""Clients in a forked child: a call that would hang is refused.

gRPC works in a child only if the parent had not used it (1.85): its threads do not run there, so that a call waits for
ever, and a call over a connection of the parent breaks the parent's calls too. With ``GRPC_ENABLE_FORK_SUPPORT=1`` it
also works after synchronous calls of the parent, but not after asynchronous ones, which every worker makes.

This file owns which clients are refused. Their private names are in `mageflow.hatchet.client_compat`.
"""

import gc
import os
from weakref import WeakSet

from hatchet_sdk.client import Client

from mageflow.errors import ForkedProcessError
from mageflow.forks import when_forked
from mageflow.hatchet import client_compat

__all__ = ["note_worker", "watch_forks"]


class _WatchedClients:
    """Every client of this process. After a fork all of them are refused if the parent had used gRPC with one."""

    def __init__(self) -> None:
        self._clients: WeakSet[Client] = WeakSet()
        self.has_worker = False
        self._is_refused = False
        when_forked(self._begin_in_child)

    def add(self, client: Client) -> None:
        self._clients.add(client)
        if self._is_refused:
            client_compat.refuse_grpc(client, _refuse)

    def _begin_in_child(self) -> None:
        clients = list(self._clients)
        is_supported = os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("1", "true", "yes", "on")
        if self.has_worker or any(
            client_compat.has_used_grpc(each, only_asynchronous=is_supported) for each in clients
        ):
            self._is_refused = True
            gc.freeze()  # connections that the parent has dropped: see `client_compat.refuse_grpc`
            for each in clients:
                client_compat.refuse_grpc(each, _refuse)


def _refuse(call: str) -> None:
    raise ForkedProcessError(call)


_watched = _WatchedClients()


def watch_forks(client: Client) -> None:
    """Let this client raise `ForkedProcessError` in a forked child where its calls would hang."""
    _watched.add(client)


def note_worker() -> None:
    """A worker runs in this process: it makes asynchronous calls over connections of its own."""
    _watched.has_worker = True
