"""The flows of the crash tests: how each is created and started, and how it must end whichever worker dies."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from mageflow.signatures import SwarmConfig

Tree = dict[str, Any]
"""``status`` of a record, and ``members`` by path: a status, or the tree of a nested flow."""

Start = Callable[[Any, dict[str, Any]], Awaitable[None]]
"""Starts a signature or flow with a message."""

SMALL = SwarmConfig(max_concurrency=3, refill_linger_ms=100)
CHAIN_CALLBACKS: dict[str, Any] = {"success": "on_success", "error": "on_error"}
CALLBACKS: dict[str, Any] = {"success_callbacks": ["on_success"], "error_callbacks": ["on_error"]}


def tree(status: str, **members: Any) -> Tree:
    """Paths as keyword arguments: ``_0`` for ``0``, ``_0_s0`` for ``0.s0``, ``_s0`` for ``.s0``, ``run`` for a run."""
    return {"status": status, "members": {_path(name): value for name, value in members.items()}}


def _path(name: str) -> str:
    if name.startswith("run"):
        return "@" + name.removeprefix("run").replace("_", ".")
    digits, mark, rest = name.removeprefix("_").partition("_")
    return f"{digits}{'.' if mark else ''}{rest}" if digits.isdigit() else f".{name.removeprefix('_')}"


@dataclass(frozen=True)
class Scenario:
    """A flow and its expected end.

    Attributes:
        name: Its name in reports.
        begin: Creates the flow, with a client or a `mageflow.flows.creation.Creation`, and starts it. A retry of the
            same task repeats it and must find the same flow.
        expected: Every member the flow must have, and no other.
        results: Results by path; the result of an error callback is the type of its error.
        also: Further types of error that are right: a worker that died cannot report its own timeout.
        intervention: What it needs from outside: a resume while it is suspended, or an interruption while the task
            ``long`` runs.
        needs_processes: True if it needs timeouts or concurrent task functions, which the simulation does not have.
    """

    name: str
    begin: Callable[[Any, Start], Awaitable[None]]
    expected: Tree
    results: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    intervention: Literal["", "resume", "interrupt"] = ""
    needs_processes: bool = False


def next_number(message: dict[str, Any]) -> dict[str, Any]:
    """The result of a step: one more than the previous result, or than the ``n`` of the message."""
    before = message.get("mageflow_results")
    return n(int((before if isinstance(before, dict) else message).get("n", 0)) + 1)


def sum_of_results(message: dict[str, Any]) -> dict[str, Any]:
    """The result of a step after a swarm."""
    return n(sum(each["n"] for each in message["mageflow_results"]))


def received(value: Any) -> dict[str, Any]:
    """The result of a success callback that received this value."""
    return {"received": value}


def error_type(name: str) -> dict[str, Any]:
    """The result of an error callback that received an error of this type."""
    return {"type": name}


def n(value: int) -> dict[str, int]:
    return {"n": value}


async def _chain(create: Any, start: Start) -> None:
    step = await create.sign("step", success_callbacks=["on_success"])
    await start(await create.chain([step, "threaded", "flaky"], **CHAIN_CALLBACKS), n(0))


async def _failing_chain(create: Any, start: Start) -> None:
    await start(await create.chain(["step", "fails", "step"], **CHAIN_CALLBACKS), n(0))


async def _slow_chain(create: Any, start: Start) -> None:
    await start(await create.chain(["step", "slow", "step"], **CHAIN_CALLBACKS), n(0))


async def _swarm(create: Any, start: Start) -> None:
    swarm = await create.swarm(
        ["step"] * 5 + ["fails"],
        config=SMALL,
        **CALLBACKS,
        closed=True,
    )
    await start(swarm, n(0))


async def _failing_swarm(create: Any, start: Start) -> None:
    config = SwarmConfig(max_concurrency=2, refill_linger_ms=0, stop_after_n_failures=1)
    swarm = await create.swarm(
        ["fails", "waits"],
        config=config,
        **CALLBACKS,
        closed=True,
    )
    await start(swarm, n(0))


async def _growing_swarm(create: Any, start: Start) -> None:
    swarm = await create.swarm(["step"], config=SMALL, **CALLBACKS)
    await start(swarm, n(0))
    await swarm.add(["step", "step"])
    await swarm.add("step", n(10))
    await swarm.close()


async def _swarm_in_chain(create: Any, start: Start) -> None:
    inner = await create.swarm(["step"] * 3, config=SMALL, success_callbacks=["on_success"], closed=True)
    callback = await create.chain(["step", "step"])
    await start(await create.chain(["step", inner, "counts"], success=["on_success", callback], error="on_error"), n(0))


async def _chain_in_swarm(create: Any, start: Start) -> None:
    chains = [await create.chain(["step", "step"]), await create.chain(["step", "fails"], error="on_error")]
    swarm = await create.swarm(
        [*chains, "step"],
        config=SMALL,
        **CALLBACKS,
        closed=True,
    )
    await start(swarm, n(0))


async def _suspended_chain(create: Any, start: Start) -> None:
    await start(await create.chain(["step", "suspends", "step"], **CHAIN_CALLBACKS), n(0))


async def _suspended_before(create: Any, start: Start) -> None:
    chain = await create.chain(["step", "step"], **CHAIN_CALLBACKS)
    await chain.suspend()
    await start(chain, n(0))


async def _suspended_nest(create: Any, start: Start) -> None:
    inner = await create.swarm(["suspends", "step", "step", "step"], config=SMALL, closed=True)
    await start(await create.chain([inner, "counts"], **CHAIN_CALLBACKS), n(0))


async def _interrupted_chain(create: Any, start: Start) -> None:
    await start(await create.chain(["step", "long"], **CHAIN_CALLBACKS), n(0))


async def _interrupted_nest(create: Any, start: Start) -> None:
    inner = await create.swarm(["long", "long"], config=SMALL, closed=True)
    await start(await create.chain([inner, "step"], **CHAIN_CALLBACKS), n(0))


async def _signature(create: Any, start: Start) -> None:
    await start(await create.sign("step", **CALLBACKS), n(0))


async def _failing_signature(create: Any, start: Start) -> None:
    await start(await create.sign("fails", **CALLBACKS), n(0))


SCENARIOS = (
    Scenario(
        "chain",
        _chain,
        tree("done", _0="done", _1="done", _2="done", _0_s0="done", _s0="done"),
        {"0": n(1), "1": n(2), "2": n(3), "0.s0": received(n(1)), ".s0": received(n(3))},
    ),
    Scenario(
        "failing chain",
        _failing_chain,
        tree("failed", _0="done", _1="failed", _e0="done"),
        {"0": n(1), ".e0": error_type("ValueError")},
    ),
    Scenario(
        "chain with a timeout",
        _slow_chain,
        tree("failed", _0="done", _1="failed", _e0="done"),
        {".e0": error_type("TaskTimedOut")},
        also=("WorkerLost",),
        needs_processes=True,
    ),
    Scenario(
        "swarm",
        _swarm,
        tree("done", _0="done", _1="done", _2="done", _3="done", _4="done", _5="failed", _s0="done"),
        {".s0": received([n(1)] * 5 + [None])},
    ),
    Scenario(
        "failing swarm",
        _failing_swarm,
        tree("failed", _0="failed", _1="interrupted", _e0="done"),
        {".e0": error_type("ValueError")},
        needs_processes=True,
    ),
    Scenario(
        "growing swarm",
        _growing_swarm,
        tree("done", _0="done", _1="done", _2="done", _3="done", _s0="done"),
        {".s0": received([n(1), n(1), n(1), n(11)])},
    ),
    Scenario(
        "swarm in chain",
        _swarm_in_chain,
        tree(
            "done",
            _0="done",
            _1=tree("done", _0="done", _1="done", _2="done", _s0="done"),
            _2="done",
            _s0="done",
            _s1=tree("done", _0="done", _1="done"),
        ),
        {"1": [n(2)] * 3, "2": n(6), ".s0": received(n(6)), ".s1": n(8)},
    ),
    Scenario(
        "chain in swarm",
        _chain_in_swarm,
        tree(
            "done",
            _0=tree("done", _0="done", _1="done"),
            _1=tree("failed", _0="done", _1="failed", _e0="done"),
            _2="done",
            _s0="done",
        ),
        {".s0": received([n(2), None, n(1)])},
    ),
    Scenario(
        "suspended chain",
        _suspended_chain,
        tree("done", _0="done", _1="done", _2="done", _s0="done"),
        {"2": n(3), ".s0": received(n(3))},
        intervention="resume",
    ),
    Scenario(
        "chain suspended before",
        _suspended_before,
        tree("done", _0="done", _1="done", _s0="done"),
        {"1": n(2), ".s0": received(n(2))},
        intervention="resume",
    ),
    Scenario(
        "suspended nest",
        _suspended_nest,
        tree("done", _0=tree("done", _0="done", _1="done", _2="done", _3="done"), _1="done", _s0="done"),
        {"0": [n(1)] * 4, "1": n(4), ".s0": received(n(4))},
        intervention="resume",
    ),
    Scenario(
        "interrupted chain",
        _interrupted_chain,
        tree("interrupted", _0="done", _1="interrupted", _e0="done"),
        {".e0": error_type("TaskInterrupted")},
        intervention="interrupt",
    ),
    Scenario(
        "interrupted nest",
        _interrupted_nest,
        tree("interrupted", _0=tree("interrupted", _0="interrupted", _1="interrupted"), _e0="done"),
        {".e0": error_type("TaskInterrupted")},
        intervention="interrupt",
        needs_processes=True,
    ),
    Scenario(
        "signature",
        _signature,
        tree("done", run="done", run_s0="done"),
        {"@": n(1), "@.s0": received(n(1))},
    ),
    Scenario(
        "failing signature",
        _failing_signature,
        tree("failed", run="failed", run_e0="done"),
        {"@.e0": error_type("ValueError")},
    ),
)
