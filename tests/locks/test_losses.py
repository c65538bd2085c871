"""Lost answers and lost data: what is held is known, a loss is reported once, nothing stays behind."""

import asyncio

import pytest

from mageflow.errors import LockLostError, StoreUnavailableError
from mageflow.interceptors import Event, Interceptor, LeaseLost, LeaseRenewal, ResourceKey
from mageflow.locks import LockService
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.conftest import Services
from tests.locks.runs import Gate, start, until, waiting


class Losses(Interceptor):
    """Records leases that were lost."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def event(self, event: Event) -> None:
        if isinstance(event, LeaseLost):
            self.tokens.append(event.hold.token)


def claim(request: str, *, session: str = "s1", resource: str = "orders", is_open: bool = False) -> LockClaim:
    return LockClaim(
        request_id=request,
        attempt_id=f"attempt-{request}",
        session_id=session,
        session_is_open=is_open,
        resources=(ResourceKey(resource),),
        owner=LockOwner(task="ghost"),
        lease_seconds=60,
        wake_id="w1",
    )


async def test_leases_granted_after_the_data_was_lost_are_kept(services: Services, valkey: EmbeddedValkey) -> None:
    """Requests that find the loss together end the old session once: none takes from another what it just got."""
    losses = Losses()
    locks = services(losses)
    old, inside = Gate(), Gate()
    entered: list[int] = []

    async def hold_old() -> None:
        async with locks.resource("old").acquire(on_lost="flag") as lease:
            await old.pass_through()
            assert lease.is_lost

    async def hold_new(number: int) -> None:
        async with locks.resource("new").acquire(number) as lease:
            entered.append(lease.token)
            await inside._open.wait()
            lease.check()

    holder = start(hold_old())
    await old.reached()
    valkey.flush()
    runs = [start(hold_new(number)) for number in range(60)]
    await until(lambda: len(entered) == 60)
    inside.open()
    old.open()
    await asyncio.gather(holder, *runs)
    assert len(losses.tokens) == 1, "the one from before, once"
    assert not set(losses.tokens) & set(entered)


class Renewals(Interceptor):
    """Records renewals by their result."""

    def __init__(self) -> None:
        self.results: list[tuple[str, str]] = []

    def event(self, event: Event) -> None:
        if isinstance(event, LeaseRenewal):
            self.results.append((event.resource.name, event.result))


async def test_lost_lease_is_renewed_no_more(services: Services, valkey: EmbeddedValkey) -> None:
    """Interceptors got one more lost renewal every few seconds, for as long as the block went on without its lease."""
    renewals = Renewals()
    locks = services(renewals, lease_seconds=1.5)
    async with locks.resource("old").acquire(on_lost="flag") as lease:
        valkey.flush()
        async with locks.resource("new").acquire():
            await until(lambda: renewals.results.count(("new", "ok")) == 3)
            assert lease.is_lost
    assert [each for each in renewals.results if each[0] == "old" and each[1] == "lost"] == []


async def test_lost_queue_is_formed_again(services: Services, valkey: EmbeddedValkey) -> None:
    """Waiting requests are sent again by themselves, and are served."""
    locks = services(lease_seconds=3.0)
    held = Gate()
    entered: list[str] = []

    async def hold() -> None:
        async with locks.resource("orders").acquire(on_lost="flag"):
            await held.pass_through()

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            entered.append("asked")

    holder = start(hold())
    await held.reached()
    waiter = start(ask())
    await waiting(locks, 1)
    valkey.flush()
    async with asyncio.timeout(60):
        await waiter
    held.open()
    await holder
    assert entered == ["asked"]


async def test_block_left_with_a_lost_lease_raises_only_that(services: Services, valkey: EmbeddedValkey) -> None:
    """`LockLostError`, and no cancellation that comes after it."""
    locks = services()

    async def run() -> str:
        try:
            async with locks.resource("orders").acquire():
                valkey.flush()
        except LockLostError:
            for _ in range(5):
                await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            return "lost, and went on"
        return "kept"

    assert await start(run()) == "lost, and went on"


@pytest.mark.parametrize("ending", ["return", "raise"])
async def test_cancellation_for_a_lost_lease_ends_with_its_block(services: Services, ending: str) -> None:
    """If the body ends at the moment its lease is found lost, the code after the block is not cancelled."""
    locks = services()

    async def run() -> str:
        try:
            async with locks.resource("orders").acquire() as lease:
                assert lease.grant is not None
                locks._sessions.current().state.end_session()  # as a renewal does; no await until the end
                {}[ending] if ending == "raise" else None
        except (LockLostError, KeyError) as error:
            for _ in range(5):
                await asyncio.sleep(0)
            return type(error).__name__
        return "kept"

    assert await start(run()) == {"return": "LockLostError", "raise": "KeyError"}[ending]


async def test_cancellation_by_the_user_wins_over_one_for_a_lost_lease(services: Services) -> None:
    """Both at once: the task is cancelled."""
    locks = services()
    inside = Gate()

    async def run() -> None:
        async with locks.resource("orders").acquire(), locks.resource("other").acquire():
            await inside.pass_through()

    task = start(run())
    await inside.reached()
    locks._sessions.current().state.end_session()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nested_blocks_that_are_lost_together_raise_once(services: Services) -> None:
    """The innermost raises; the outer blocks are not cancelled a second time."""
    locks = services()
    inside = Gate()

    async def run() -> str:
        try:
            async with locks.resource("orders").acquire(), locks.resource("other").acquire():
                await inside.pass_through()
        except LockLostError as error:
            await asyncio.sleep(0)
            return error.resource
        return ""

    task = start(run())
    await inside.reached()
    locks._sessions.current().state.end_session()
    assert await task in {"orders", "other"}


async def test_release_that_a_driver_repeats_is_no_loss(store: LockStore) -> None:
    """It gets the same answer; a lock that was taken away is distinguished from one that was released."""
    await store.acquire(claim("q1"))
    resources = (ResourceKey("orders"),)
    assert [(await store.release("q1", resources)).verdict.released for _ in range(3)] == [1, 1, 1]
    assert (await store.release("q2", resources)).verdict.released == 0
    await store.acquire(claim("q3", session="s2"))
    await store.end_session("s2")
    assert (await store.release("q3", resources)).verdict.released == 0


async def test_list_of_released_requests_is_bounded(store: LockStore, valkey: EmbeddedValkey) -> None:
    """The last one to two thousand, for a minute."""
    for number in range(2030):
        await store.acquire(claim(f"q{number}"))
        await store.release(f"q{number}", (ResourceKey("orders"),))
    port = store._port
    key = next(each for each in await port.command("KEYS", "*") if each.endswith(":ended"))
    assert await port.command("LLEN", key) == 1029
    assert 0 < await port.command("PTTL", key) <= 60_000


async def test_request_that_is_executed_long_after_its_release_does_not_stay(services: Services) -> None:
    """Its bytes came when the mark of its release had gone: the next renewal finds the unknown request."""
    locks = services(lease_seconds=3.0)
    inside = Gate()

    async def hold() -> None:
        async with locks.resource("other").acquire():  # keeps the session alive
            await inside.pass_through()

    holder = start(hold())
    await inside.reached()
    session, store = locks._sessions.current().session_lease.session_id, locks._store
    await store.release("late", (ResourceKey("orders"),))
    assert await store._port.command("DEL", f"{Keys('mageflow', 'tests').lock('locks')}:withdrawn:late") == 1
    reply = await store.acquire(claim("late", session=session, is_open=True))
    assert reply.verdict.kind == "granted"

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            pass

    async with asyncio.timeout(60):
        await start(ask())
    assert [each.lock for each in (await locks.snapshot()).holders] == ["other"], "and takes nothing else with it"
    inside.open()
    await holder


async def test_closing_ends_waiting_requests(services: Services) -> None:
    """They fail, and are not sent again after the process has closed its locks."""
    locks, other = services(), services()
    inside = Gate()

    async def hold() -> None:
        async with other.resource("orders").acquire():
            await inside.pass_through()

    async def ask() -> None:
        async with locks.resource("orders").acquire():
            pytest.fail("entered after the locks were closed")

    holder = start(hold())
    await inside.reached()
    waiter = start(ask())
    await waiting(other, 1)
    await locks.aclose()
    with pytest.raises(StoreUnavailableError, match="were closed"):
        await waiter
    await waiting(other, 0)
    inside.open()
    await holder
    assert (await other.snapshot()).holders == ()


async def test_pending_releases_are_dropped_after_a_lease(services: Services) -> None:
    """While the server is unreachable, only the releases of one lease are kept."""
    with EmbeddedValkey() as server:
        port = RedisPort(server.url)
        locks = LockService(LockStore(port, Keys("mageflow", "tests")), lease_seconds=0.6)
        server.kill()
        for _ in range(5):
            with pytest.raises(StoreUnavailableError):
                async with locks.resource("orders").acquire():
                    pass
        assert locks._sessions.current().pending_releases.request_ids
        await until(lambda: not locks._sessions.current().pending_releases.request_ids)
        await until(lambda: not locks._sessions.current().renewer.is_running)
        await locks.aclose()
        await port.aclose()
