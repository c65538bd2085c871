"""Flows in a real Valkey, for the commands that read what is stored there."""

from typing import Any

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.store import Keys, RedisPort, Store
from tests.flows.fake_hatchet import FakeHatchet, FakeWorker


async def add(message: dict[str, Any]) -> int:
    return message.get("n", 0) + 1


async def fail(message: dict[str, Any]) -> None:
    raise ValueError("no good")


async def odd(message: dict[str, Any]) -> int:
    if message["n"] % 2:
        return message["n"]
    raise KeyError("even")


class StoredFlows:
    """Flows in namespace ``prod_`` over the real server, and a worker that runs them."""

    def __init__(self, url: str) -> None:
        self.port = RedisPort(url)
        self.hatchet = FakeHatchet()
        settings = Settings()
        self.keys = Keys("mageflow", "prod_")
        store = Store(self.port, self.keys, settings)
        self.flows = Flows(store, self.hatchet, self.hatchet, settings)
        self.tasks = {"add": add, "fail": fail, "odd": odd, "callback": add}
        self.worker = FakeWorker(self.hatchet, self.flows, self.tasks)

    def due(self, key: str) -> str:
        """The reconciler's index that leads to a record."""
        return self.keys.parse(key).due
