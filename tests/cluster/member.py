"""One process of several that may lead; for tests that kill it. Arguments: the URL, the lease in seconds."""

import asyncio
import sys

from mageflow.cluster import ClusterObserver
from mageflow.config import Settings
from mageflow.interceptors import ClusterView, Event, Interceptor
from mageflow.store import Keys, RedisPort, Store


class Telling(Interceptor):
    def event(self, event: Event) -> None:
        if isinstance(event, ClusterView):
            print("leads" if event.is_leader else "follows", flush=True)


async def main(url: str, lease_seconds: float) -> None:
    """Observe until killed."""
    store = Store(RedisPort(url), Keys("mageflow", "tests"), Settings())
    await ClusterObserver(store, None, Telling(), interval_seconds=lease_seconds / 3, lease_seconds=lease_seconds).run()


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
