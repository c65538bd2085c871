"""The screens of the live view: in a real terminal, and with data that would be markup elsewhere."""

import shutil
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from textual.widgets import TabbedContent

from mageflow.cli.top.sources import Reader
from mageflow.cli.top.sources.snapshot import FlowNode, MemberNode, RunAttempt, Sleeper, TaskRow
from mageflow.cli.top.views import LiveView
from mageflow.interceptors import ResourceKey
from mageflow.store import Keys, LockClaim, LockOwner, LockStore, RedisPort
from mageflow.testing import EmbeddedValkey
from tests.cli.test_data_is_text import CONTROL, HOSTILE, lock_of, visible
from tests.cli.top.terminal import open_terminal

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


def claim(number: int, resource: ResourceKey, *, task: str, attempt: int = 1) -> LockClaim:
    owner = LockOwner(task=task, run_id=f"run{number}", task_run_id=f"run{number}", attempt=attempt)
    return LockClaim(
        request_id=f"q{number}-{resource.name}", attempt_id=f"run{number}:1", session_id=f"s{number}",
        session_is_open=False, resources=(resource,), owner=owner, lease_seconds=60, wake_id=f"w{number}",
    )  # fmt: skip


@asynccontextmanager
async def view(redis: EmbeddedValkey, port: RedisPort) -> AsyncGenerator[LiveView]:
    """The application with a reader of this Redis, and no worker."""
    async with Reader(list, port, Keys("mageflow", ""), raw_keys=True) as reader:
        yield LiveView(reader, interval=0.2)


@pytest.fixture
async def port(mageflow_redis: EmbeddedValkey) -> AsyncGenerator[RedisPort]:
    port = RedisPort(mageflow_redis.url)
    yield port
    await port.aclose()


def screen_of(app: LiveView) -> list[str]:
    """The lines that are on the screen."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_names_are_text(mageflow_redis: EmbeddedValkey, port: RedisPort, hostile: str):
    """Names from Redis are shown escaped: no markup, no control character."""
    resource = ResourceKey(lock_of(hostile), "k")
    store = LockStore(port, Keys("mageflow", ""))
    for number in range(2):
        await store.acquire(claim(number, resource, task=f"task {hostile}"))

    async with view(mageflow_redis, port) as app, app.run_test(size=(300, 50)) as pilot:
        while app.snapshot is None:
            await pilot.pause(0.05)
        await pilot.pause()
        lines = screen_of(app)

    text = "\n".join(lines)
    assert CONTROL.search(text) is None
    assert visible(lock_of(hostile)) in text, text
    assert text.count(visible(f"task {hostile}")) == 2, text


async def test_waits_are_a_graph(mageflow_redis: EmbeddedValkey, port: RedisPort):
    """A run that waits and holds has its own waiters below it."""
    store = LockStore(port, Keys("mageflow", ""))
    first, second = ResourceKey("first", ""), ResourceKey("second", "")
    await store.acquire(claim(1, first, task="one"))
    await store.acquire(claim(2, second, task="two"))
    for number, resource, task in ((2, first, "two"), (3, second, "three")):
        wanted = claim(number, resource, task=task)
        await store.acquire(
            LockClaim(
                **{name: getattr(wanted, name) for name in LockClaim.__dataclass_fields__ if name != "session_is_open"},
                session_is_open=number == 2,
            )
        )

    async with view(mageflow_redis, port) as app, app.run_test(size=(200, 50)) as pilot:
        while app.snapshot is None:
            await pilot.pause(0.05)
        await pilot.pause()
        lines = screen_of(app)

    order = [
        next(number for number, line in enumerate(lines) if text in line)
        for text in ("first held by one", "1. two", "second held by two", "1. three")
    ]
    assert order == list(range(order[0], order[0] + 4)), "\n".join(lines)
    indents = [lines[order[0] + n].index(text) for n, text in enumerate(("first", "1. two", "second", "1. three"))]
    assert indents == sorted(set(indents))


@needs_tmux
async def test_in_a_terminal(mageflow_redis: EmbeddedValkey, port: RedisPort):
    """It shows what Redis has, says what it cannot read, follows changes, resizes and quits with status 0."""
    store = LockStore(port, Keys("mageflow", ""))
    await store.acquire(claim(1, ResourceKey("account", ""), task="order.pay"))
    command = [sys.executable, "-m", "mageflow", "top", "--interval", "0.3"]
    environment = {
        "MAGEFLOW_REDIS_URL": mageflow_redis.url,
        "MAGEFLOW_METRICS_PORT": "1",
        "MAGEFLOW_METRICS_PORT_SPAN": "1",
    }
    with open_terminal(command, environment) as terminal:
        screen = terminal.wait_for(lambda text: "account held by order.pay" in text)
        assert "no worker serves metrics here" in screen
        assert "locks: 1 held, 0 waited for" in screen
        await store.acquire(claim(2, ResourceKey("account", ""), task="order.pack"))
        terminal.wait_for(lambda text: "1. order.pack" in text)
        terminal.press("Space")
        terminal.wait_for(lambda text: "paused" in text)
        terminal.press("Space")
        terminal.wait_for(lambda text: "paused" not in text)
        terminal.resize(60, 20)
        terminal.wait_for(lambda text: "account held" in text and max(map(len, text.splitlines())) <= 60)
        terminal.press("q")
        terminal.wait_for(lambda text: "status 0" in text)


@needs_tmux
async def test_redis_goes_away_and_comes_back(mageflow_redis: EmbeddedValkey, port: RedisPort):
    """The view goes on: it says that Redis does not answer, and shows the locks again afterwards."""
    store = LockStore(port, Keys("mageflow", ""))
    command = [sys.executable, "-m", "mageflow", "top", "--interval", "0.3"]
    with open_terminal(command, {"MAGEFLOW_REDIS_URL": mageflow_redis.url}) as terminal:
        terminal.wait_for(lambda text: "no lock is held" in text)
        mageflow_redis.restart()
        await store.acquire(claim(1, ResourceKey("account", ""), task="order.pay"))
        terminal.wait_for(lambda text: "account held by order.pay" in text)
        terminal.press("q")
        terminal.wait_for(lambda text: "status 0" in text)


HOSTILE_ATTEMPT = {
    "task": "{}", "run_id": "{}", "task_run_id": "x{}", "attempt": 1, "max_attempts": 3, "worker": "{}",
    "trace_id": "t{}", "flow": "{}", "flow_kind": "chain", "flow_id": "{}", "flow_step": 0, "queue_wait_s": 0.5,
    "started_at": 1000.0, "elapsed_s": 1.0, "stages": {"body": 1.0}, "phase": "", "outcome": "retried",
    "exception": "E{}", "message": "M{}", "will_retry": True,
}  # fmt: skip


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_flows_errors_and_traces_are_text(port: RedisPort, hostile: str, mageflow_redis: EmbeddedValkey):
    """On every tab."""
    facts = {
        name: value.format(hostile) if isinstance(value, str) else value for name, value in HOSTILE_ATTEMPT.items()
    }
    run = RunAttempt(**facts)
    member = MemberNode("0", "step", hostile, "failed", "failed", 2, hostile, 1.0, f"F{hostile}", None)
    flow = FlowNode("k:chain:" + hostile, "chain", f"N{hostile}", "failed", 1.0, 2.0, 0, 1, f"G{hostile}", (member,), 1)
    expected = {"flows": [f"N{hostile}", f"F{hostile}", f"G{hostile}"], "errors": [f"E{hostile}: M{hostile}"]}
    expected["traces"] = [hostile]
    async with view(mageflow_redis, port) as app, app.run_test(size=(400, 50)) as pilot:
        await pilot.press("space")
        while app.snapshot is None:
            await pilot.pause(0.05)
        app._show(replace(app.snapshot, attempts=(run,), flows=(flow,)))
        for number, (tab, texts) in enumerate(expected.items(), start=2):
            await pilot.press(str(number))
            await pilot.pause(0.1)
            text = "\n".join(screen_of(app))
            assert CONTROL.search(text) is None
            for each in texts:
                assert visible(each) in text, (tab, text)


async def test_a_key_leads_from_each_tab_to_each_other(port: RedisPort, mageflow_redis: EmbeddedValkey):
    """Also from the traces, whose list has the arrow keys; a tab stays while new readings come."""
    facts = {name: value.format("one") if isinstance(value, str) else value for name, value in HOSTILE_ATTEMPT.items()}
    async with view(mageflow_redis, port) as app, app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        while app.snapshot is None:
            await pilot.pause(0.05)
        snapshot = replace(app.snapshot, attempts=(RunAttempt(**facts),))
        for key, tab in (("4", "traces"), ("1", "overview"), ("4", "traces"), ("2", "flows"), ("3", "errors")):
            await pilot.press(key)
            for _ in range(3):
                app._show(snapshot)
                await pilot.pause(0.1)
            assert app.query_one(TabbedContent).active == tab


async def test_flows_that_are_not_read_are_not_called_absent(port: RedisPort, mageflow_redis: EmbeddedValkey):
    """Without Redis the tab says that it is not read. It said that no flow runs."""
    async with view(mageflow_redis, port) as app, app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space", "2")
        while app.snapshot is None:
            await pilot.pause(0.05)
        await pilot.pause(0.1)
        assert "no flow runs" in "\n".join(screen_of(app))
    async with Reader(list, None, Keys("mageflow", ""), raw_keys=True) as reader:
        app = LiveView(reader, interval=0.2)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("space", "2")
            while app.snapshot is None:
                await pilot.pause(0.05)
            await pilot.pause(0.1)
            text = "\n".join(screen_of(app))
    assert "Redis is not read" in text
    assert "no flow runs" not in text


async def test_the_arrow_keys_scroll_the_panel_of_a_tab(port: RedisPort, mageflow_redis: EmbeddedValkey):
    """What a small terminal does not show can be reached without a mouse; Tab goes to the next panel."""
    tasks = tuple(TaskRow(f"task-{number:02}", {}, {}, 0.0, 0.0, None, None, is_recent=False) for number in range(40))
    async with view(mageflow_redis, port) as app, app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        while app.snapshot is None:
            await pilot.pause(0.05)
        app._show(replace(app.snapshot, tasks=tasks))
        await pilot.pause(0.1)
        assert "task-39" not in "\n".join(screen_of(app))
        await pilot.press("end")
        await pilot.pause(1.0)
        assert "task-39" in "\n".join(screen_of(app))


async def test_staggers_are_readable_in_a_small_terminal(port: RedisPort, mageflow_redis: EmbeddedValkey):
    """At 80 columns and 24 lines: the name of the task and when it wakes."""
    sleeper = Sleeper("price", "0123456789", window_s=20.0, delay_s=10.0, slept_s=2.0)
    async with view(mageflow_redis, port) as app, app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        while app.snapshot is None:
            await pilot.pause(0.05)
        app._show(replace(app.snapshot, sleepers=(sleeper,)))
        await pilot.pause(0.1)
        text = "\n".join(screen_of(app))
    assert "price" in text, text
    assert "in 8.0 s" in text, text


@needs_tmux
@pytest.mark.slow
def test_the_demo_opens_the_view():
    """``mageflow demo --watch`` shows its own busy worker, and ends everything with the view."""
    with open_terminal([sys.executable, "-m", "mageflow", "demo", "--watch"], {}) as terminal:
        terminal.wait_for(lambda text: "checkout.charge" in text and "1 process" in text, seconds=90)
        terminal.press("2")
        terminal.wait_for(lambda text: "fulfilment" in text or "inventory" in text, seconds=60)
        terminal.press("1")
        terminal.resize(80, 24)
        terminal.wait_for(lambda text: "checkout.charge" in text and max(map(len, text.splitlines())) <= 80)
        terminal.press("q")
        terminal.wait_for(lambda text: "status 0" in text, seconds=60)
