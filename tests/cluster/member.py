"""One process of several that may lead; for tests that kill it. Arguments: the URL, the lease in seconds."""

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext

from mageflow.cluster import ClusterObserver
from mageflow.config import Settings
from mageflow.interceptors import ClusterView, Interceptor
from mageflow.store import Keys, RedisPort, Store


class Telling(Interceptor):
    def view_cluster(self, call: ClusterView) -> AbstractContextManager[None]:
        print("leads" if call.is_leader else "follows", flush=True)
        return nullcontext()


async def main(url: str, lease_seconds: float) -> None:
    """Observe until killed."""
    store = Store(RedisPort(url), Keys("mageflow", "tests"), Settings())
    await ClusterObserver(store, None, Telling(), interval_seconds=lease_seconds / 3, lease_seconds=lease_seconds).run()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
