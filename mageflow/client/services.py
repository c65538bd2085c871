"""What a client does with Redis: its locks, its signatures and flows, and its part in the view of the cluster.

A client without Redis loads this module, and the rooms it names, when something of it is used.
"""

from hatchet_sdk import Hatchet

from mageflow import hatchet as sdk
from mageflow import invocation
from mageflow.cluster import ClusterObserver, QueueObserver
from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor
from mageflow.locks import LockService
from mageflow.store import Keys, LockStore, RedisPort, Store, warn_unsuitable

__all__ = ["RedisServices"]


class RedisServices:
    """The services of one client that keep their state in Redis. Making them opens no connection.

    Args:
        client: Runs what users start.
        admin: Sends the runs of flows.
        port: Goes to Redis.
        register: The tasks that the client declared.
        settings: The client's settings.
        interceptor: Observes everything.
        extend: Requests more execution time from Hatchet.
    """

    def __init__(
        self,
        client: Hatchet,
        admin: sdk.ObservedAdminClient,
        port: RedisPort,
        register: sdk.TaskRegister,
        settings: Settings,
        interceptor: Interceptor,
        extend: invocation.TimeoutExtender,
    ) -> None:
        keys = Keys(settings.key_prefix, client.namespace)
        self.locks = LockService(
            LockStore(port, keys),
            interceptor,
            extend=extend,
            lease_seconds=settings.lock_lease_seconds,
            victim_backoff_seconds=settings.lock_victim_backoff_seconds,
            raw_keys=settings.lock_resource_detail == "raw",
        )
        store = Store(port, keys, settings, interceptor)
        self.flows = Flows(
            store,
            sdk.SdkDispatcher(admin, client.runs, client.scheduled, register),
            sdk.SdkCatalog(register),
            settings,
            interceptor,
        )
        self.flows.bind_runner(sdk.SdkSignatureRunner(client, register, self.flows))
        self.cluster = ClusterObserver(store, self.locks, interceptor)
        self.queue = QueueObserver(
            lambda: sdk.waiting_runs(client.metrics, register.tasks()),
            lambda: self.cluster.leads,
            interceptor,
            interval_seconds=settings.queue_interval_s,
        )
        self._port = port

    async def examine_server(self) -> None:
        """Log a warning for each setting of the server that endangers what it stores."""
        await warn_unsuitable(self._port)
