"""Sent runs are acknowledged once, also when a worker stops while that is on its way."""

import asyncio
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager

from mageflow.config import Settings
from mageflow.flows import Flows
from mageflow.interceptors import Interceptor, RedisCall
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.fake_hatchet import FakeHatchet


class Acknowledged(Interceptor):
    """The acknowledgements that have begun and ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    def redis(self, call: RedisCall) -> AbstractContextManager[None]:
        """Count the call."""
        return self._count(call.operation == "ack")

    @contextmanager
    def _count(self, counts: bool) -> Generator[None]:
        self.begun += counts
        yield
        self.ended += counts


async def test_drain_ends_after_the_acknowledgement_that_is_on_its_way(
    valkey: EmbeddedValkey, hatchet: FakeHatchet
) -> None:
    """It acknowledged the same runs a second time, and what was on its way wrote after the end."""
    seen, settings = Acknowledged(), Settings(reconcile_grace_seconds=3)  # a second until the acknowledgement
    port = RedisPort(f"{valkey.url}?socket_timeout=60", seen)
    flows = Flows(Store(port, Keys("mageflow", "test"), settings), hatchet, hatchet, settings)
    chain = await flows.creation.chain(["price", "ship"])
    await flows.start(chain, {"order": 17})
    await port.command("SCRIPT", "FLUSH")
    await port.command("CLIENT", "PAUSE", 3000, "WRITE")
    async with asyncio.timeout(60):
        while not seen.begun:
            await asyncio.sleep(0.001)
    assert seen.ended == 0

    await flows.drain()

    assert (seen.begun, seen.ended) == (2, 2)  # one script, which the server does not know yet
    await port.aclose()
