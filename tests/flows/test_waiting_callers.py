"""Callers that wait for the result of a flow while Redis is away."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from mageflow.errors import FlowFailedError, StoreUnavailableError
from mageflow.flows import Flows
from mageflow.flows.repetition import while_unavailable
from mageflow.store import Keys, RedisPort, Store
from mageflow.testing.valkey import EmbeddedValkey
from tests.flows.conftest import QUICK, stop
from tests.flows.fake_hatchet import FakeHatchet


@pytest.fixture
def lasting() -> Iterator[EmbeddedValkey]:
    """A Valkey that writes everything to disk."""
    with EmbeddedValkey(append_only=True) as server:
        yield server


@pytest.fixture
async def outlasting(lasting: EmbeddedValkey, hatchet: FakeHatchet) -> AsyncIterator[Flows]:
    """Flows on that server."""
    port = RedisPort(lasting.url)
    flows = Flows(Store(port, Keys("mageflow", "test"), QUICK), hatchet, hatchet, QUICK)
    yield flows
    await stop(flows)
    await port.aclose()


async def test_a_caller_that_waits_outlives_a_restart_of_redis(outlasting: Flows, lasting: EmbeddedValkey) -> None:
    """It gets the end of the flow, not the error of a look in between."""
    chain = await outlasting.creation.chain(["one", "two"])
    await outlasting.start(chain)
    waiting = asyncio.ensure_future(outlasting.wait(chain.key, poll_seconds=0.01))
    await asyncio.sleep(0.1)
    lasting.kill()
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await asyncio.to_thread(lasting.start)
    await while_unavailable(chain.interrupt, 60)  # its connection of before is closed
    with pytest.raises(FlowFailedError):
        await asyncio.wait_for(waiting, 60)


async def test_a_caller_does_not_wait_for_ever_for_a_redis_that_is_away(
    outlasting: Flows, lasting: EmbeddedValkey
) -> None:
    """It gets the error after its limit."""
    chain = await outlasting.creation.chain(["one", "two"])
    await outlasting.start(chain)
    lasting.kill()
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(outlasting.wait(chain.key, retry_seconds=0.2), 60)
