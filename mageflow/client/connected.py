"""When a client makes its services over Redis: at once with a Redis, without one when they are used."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from mageflow import flows, locks, store
from mageflow.interceptors import Attempt

if TYPE_CHECKING:
    from mageflow.client.services import RedisServices

__all__ = ["ConnectedClient"]


class ConnectedClient:
    """The part of `Mageflow` that has the services over Redis.

    With a Redis the constructor makes them, so that no event loop waits for their import. A client without Redis makes
    them when one is used, which is an error in most cases: a worker of plain tasks never loads them.
    """

    _port: "store.RedisPort"
    _has_redis: bool

    def _connect(self, port: "store.RedisPort", make_services: "Callable[[], RedisServices]") -> None:
        """Set what the services are made with, and make them if there is a Redis. Opens no connection."""
        self._port = port
        self._has_redis = port.is_configured
        self._make_services = make_services
        self._services_mutex = threading.Lock()
        self._made_services = make_services() if port.is_configured else None

    @property
    def _services(self) -> "RedisServices":
        if self._made_services is None:
            with self._services_mutex:
                if self._made_services is None:
                    self._made_services = self._make_services()
        return self._made_services

    @property
    def _locks(self) -> "locks.LockService":
        return self._services.locks

    @property
    def _flows(self) -> "flows.Flows":
        return self._services.flows

    async def _release_locks(self, attempt: Attempt) -> None:
        if self._made_services is not None:
            await self._made_services.locks.release_attempt(attempt)

    async def _stop_heartbeat(self, attempt: Attempt) -> None:
        if self._made_services is not None:
            await self._made_services.flows.stop_heartbeat(attempt)

    async def aclose(self) -> None:
        """Release the locks of this process and close the connections to Redis made for the running event loop.

        A worker does this when it stops. Call it in a program that uses the client in more than one event loop, before
        each loop ends. A Redis client that you gave to `Mageflow` stays open, and this client can be used again.
        """
        if self._made_services is not None:
            await self._made_services.flows.drain()
            await self._made_services.locks.aclose()
        await self._port.aclose()
