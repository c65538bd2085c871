"""Gives values that users may give by mistake to every entrance: ``python -m tests.store.fuzz_inputs --seconds 60``.

The entrances are bound values, messages, identifiers, names, keys of signatures and of locks, metadata of runs, and
arguments of the commands. Prints how many inputs and operations there were, how many ended with a typed error, and each
untyped end with its seed. An operation that takes over `SLOW_SECONDS` is untyped too.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from click.testing import CliRunner
from hatchet_sdk import Context, Hatchet

from mageflow import Mageflow, Settings
from mageflow.cli import group
from mageflow.engine import LocalEngine
from mageflow.errors import MageflowError
from mageflow.locks import LockService
from mageflow.metadata import OWN_KEYS, SHARED_KEYS
from mageflow.signatures import SwarmConfig
from mageflow.store import Keys, LockStore
from mageflow.testing import running_worker
from mageflow.testing.valkey import EmbeddedValkey
from tests.store.fuzz import QUICK, SLOW_SECONDS, Counts
from tests.store.stored_records import Stage

NESTED: Final = 20_000
TEXTS: Final[tuple[str, ...]] = (
    "", "x", "\x00", "a\x00b", "\ud800", "a\udfffb", "\ufeff", "\x1b[31m", "é" * 300, "-1", "0", "1e400", "nan", "inf",
    "-Infinity", "9" * 5000, "-" + "9" * 5000, "0x10", "null", "[" * 3000, "{", "{}", "mageflow:{",
    "mageflow:{/a}:chain:", "mageflow:{/a}:chain:x#", "mageflow:{/a}:chain:x#" + "9" * 5000,
    "mageflow:{/a}:chain:x#0.s0.e0/1",
    "mageflow:{/a}:chain:x#0/" + "9" * 5000, "mageflow:{/a}:task:" + "x" * 5000, "*", "?", "[a]", "a\r\nb",
    "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "00-" + "f" * 32 + "-" + "f" * 16 + "-ff", "chain:x:" + "9" * 5000,
    "--", "-h=", "redis://", "redis://127.0.0.1:99999/0", "redis://[::1", "unix://", "http://x", "1" * 300 + ".5",
)  # fmt: skip
"""Texts."""


def deep(levels: int, *, of_lists: bool) -> Any:
    """A value inside of a value inside of a value."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if of_lists else {"a": value}
    return value


VALUES: Final[tuple[Any, ...]] = (
    *TEXTS, None, True, 0, -1, 10**18, int("9" * 4000), 10**5000, 1e300, float("inf"), float("-inf"), float("nan"),
    b"\xff", {"\ud800": 1}, {"\x00": "\x00"}, {1: 2}, {(1, 2): 3}, {"a": float("nan")}, {"a": 10**5000}, [[]], {1, 2},
    object(), ValueError("x"), deep(50, of_lists=True), deep(900, of_lists=False), deep(NESTED, of_lists=True),
    deep(NESTED, of_lists=False),
)  # fmt: skip
"""Values of every kind, JSON or not."""


def circle() -> Any:
    """A value that holds itself."""
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


class Inputs:
    """Random texts and values."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def text(self) -> str:
        """One text; half of the time, two of them joined."""
        first = self._chance.choice(TEXTS)
        return first + self._chance.choice(TEXTS) if self._chance.random() < 0.3 else first

    def value(self) -> Any:
        """One value, sometimes inside another."""
        value = circle() if self._chance.random() < 0.03 else self._chance.choice(VALUES)
        kind = self._chance.random()
        if kind < 0.15:
            return [value]
        return {self.text(): value} if kind < 0.3 else value

    def mapping(self) -> dict[str, Any]:
        """Values by name."""
        return {self.text() or "x": self.value() for _ in range(self._chance.choice((1, 1, 2)))}

    def metadata(self) -> dict[str, Any]:
        """Metadata of a run, with some of mageflow's own keys; Hatchet refuses a run whose metadata has a NUL."""
        own = (*OWN_KEYS, *SHARED_KEYS)
        return {self._chance.choice(own): self.text().replace("\0", "") for _ in range(self._chance.choice((1, 2, 5)))}


class Target:
    """Everything that takes an input, over one server.

    Args:
        url: URL of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._stage = Stage.open(url, QUICK)
        self._locks = LockService(LockStore(self._stage.port, Keys("mageflow", "fuzz")))

    async def aclose(self) -> None:
        """Close what was opened."""
        await self._locks.aclose()
        await self._stage.aclose()

    def operations(self, inputs: Inputs) -> dict[str, Callable[[], Awaitable[Any]]]:
        """Every operation by name, each with inputs of its own."""
        create, lifecycle, flows = self._stage.flows.creation, self._stage.flows.lifecycle, self._stage.flows
        return {
            "bind": lambda: self._stored(create.sign("price", bind=inputs.mapping())),
            "bind keywords": lambda: self._stored(create.sign("price", **inputs.mapping())),
            "identifiers": lambda: self._stored(create.sign("price", task_identifiers=inputs.mapping())),
            "task name": lambda: self._stored(create.sign(inputs.text())),
            "callback": lambda: self._stored(create.sign("price", error_callbacks=[inputs.value()])),
            "chain": lambda: self._stored(create.chain(["price", "price"], inputs.text(), bind=inputs.mapping())),
            "chain of": lambda: self._stored(create.chain([inputs.value(), "price"])),
            "swarm": lambda: self._stored(create.swarm(["price"], inputs.text(), bind=inputs.mapping())),
            "swarm limit": lambda: self._limited(inputs),
            "start": lambda: self._started(inputs),
            "add": lambda: self._added(inputs),
            "load": lambda: flows.load(inputs.text()),
            "suspend": lambda: lifecycle.suspend(inputs.text()),
            "resume": lambda: lifecycle.resume(inputs.text()),
            "interrupt": lambda: lifecycle.interrupt(inputs.text()),
            "interrupt by": lambda: self._interrupted(inputs),
            "remove": lambda: lifecycle.remove(inputs.text()),
            "lock": lambda: self._locked(inputs.text()),
            "lock by value": lambda: self._locked(inputs.value()),
            "lock name": lambda: self._declared(inputs.text()),
            "locks": self._locks.snapshot,
            "inspect": lambda: self._command("inspect", inputs.text()),
            "inspect --first": lambda: self._command("inspect", "x", "--first", inputs.text()),
            "inspect --namespace": lambda: self._command("inspect", inputs.text(), "--namespace", inputs.text()),
            "locks --limit": lambda: self._command("locks", "--limit", inputs.text()),
            "locks --namespace": lambda: self._command("locks", "--json", "--namespace", inputs.text()),
            "damaged --namespace": lambda: self._command("damaged", "--namespace", inputs.text()),
            "--redis-url": lambda: self._run(["damaged", "--redis-url", inputs.text()]),
            "command": lambda: self._run([inputs.text(), inputs.text()]),
            "engine --speed": lambda: self._run(["engine", "--speed", "-1", "--grpc-port", inputs.text()]),
            "dashboards": lambda: self._run(["dashboards", "check", inputs.text()]),
        }

    async def _stored(self, creating: Awaitable[Any]) -> None:
        """What was stored can be read again, and the same values come back."""
        signature = await creating
        await self._stage.flows.load(signature.key)
        await self._stage.store.load_with_result(signature.key)

    async def _limited(self, inputs: Inputs) -> None:
        try:
            config = SwarmConfig(max_concurrency=inputs.value())
        except ValueError:  # pydantic's own
            return
        await self._stage.flows.creation.swarm(["price"], config=config)

    async def _started(self, inputs: Inputs) -> None:
        chain = await self._stage.flows.creation.chain(["price", "price"])
        await self._stage.flows.start(chain, inputs.value(), by=inputs.text())
        await self._stage.flows.load(chain.key)

    async def _added(self, inputs: Inputs) -> None:
        swarm = await self._stage.flows.creation.swarm(["price"])
        await swarm.add(inputs.value(), inputs.value())

    async def _interrupted(self, inputs: Inputs) -> None:
        chain = await self._stage.flows.creation.chain(["price", "price"])
        await self._stage.flows.lifecycle.interrupt(chain.key, by=inputs.text(), why=inputs.text())
        await self._stage.flows.load(chain.key)

    async def _locked(self, key: Any) -> None:
        async with self._locks.resource("orders").acquire(key=key):
            await self._locks.snapshot()

    async def _declared(self, name: str) -> None:
        async with self._locks.resource(name).acquire():
            pass

    async def _command(self, *arguments: str) -> None:
        await self._run([*arguments, "--redis-url", self.url])

    async def _run(self, arguments: list[str]) -> None:
        # No argument of a process has a NUL; bytes that are not UTF-8 arrive as these surrogates.
        given = [
            each.replace("\0", "\udcff").replace("\ud800", "\udcc3").replace("\udfff", "\udcff") for each in arguments
        ]
        result = await asyncio.to_thread(CliRunner().invoke, group._mageflow, given)
        if not isinstance(result.exception, SystemExit | None):
            raise result.exception
        if result.exit_code not in {0, 1, 2} or "Traceback" in result.output:
            raise AssertionError(f"{arguments!r:.200}: {result.exit_code} {result.output[-300:]}")


async def measured(counts: Counts, where: str, call: Awaitable[Any]) -> None:
    """Await one operation and count its end."""
    counts.operations += 1
    started = time.monotonic()
    try:
        async with asyncio.timeout(SLOW_SECONDS * 5):
            await call
    except MageflowError as error:
        counts.typed[type(error).__name__] += 1
    except Exception as error:  # noqa: BLE001 - what the fuzz is for
        counts.untyped.append(f"{where}: {type(error).__name__}: {str(error)[:300]!r}")
    if time.monotonic() - started > SLOW_SECONDS:
        counts.untyped.append(f"{where}: took {time.monotonic() - started:.1f} s")


async def fuzz_inputs(url: str, seeds: Callable[[], int | None]) -> Counts:
    """Give inputs to every operation, with one seed after another until there is none."""
    counts, target = Counts(), Target(url)
    try:
        while (seed := seeds()) is not None:
            counts.inputs += 1
            for name, call in target.operations(Inputs(random.Random(seed))).items():
                await measured(counts, f"seed {seed} {name}", _called(call))
    finally:
        await target.aclose()
    return counts


async def _called(call: Callable[[], Awaitable[Any]]) -> Any:
    """Errors before the first await count too."""
    return await call()


async def fuzz_metadata(task: Any, seeds: Callable[[], int | None]) -> Counts:
    """Start runs of an unsigned task on a real worker whose metadata is wrong: each is a plain run, and succeeds."""
    counts = Counts()
    while (seed := seeds()) is not None:
        counts.inputs += 1
        metadata = Inputs(random.Random(seed)).metadata()
        await measured(counts, f"seed {seed} metadata {metadata!r:.300}", _echoed(task, metadata, seed))
    return counts


async def _echoed(task: Any, metadata: dict[str, Any], seed: int) -> None:
    result = await task.aio_run({"n": seed}, additional_metadata=metadata)
    if result != {"n": seed}:
        raise AssertionError(f"{result!r} instead of the task's own result")


def declare_echo(client: Mageflow) -> Any:
    """A task that returns its message."""

    @client.task(name="fuzzed-echo")
    @client.with_ctx
    async def echo(msg: dict[str, Any], ctx: Context) -> dict[str, Any]:
        return {"n": msg["n"]}

    return echo


def bare_echo(hatchet: Hatchet) -> Any:
    """The same task for a client that does not write mageflow's keys anew."""
    return hatchet.stubs.task(name="fuzzed-echo", input_validator=dict, output_validator=dict)


def main() -> None:
    """Fuzz for some seconds, print the counts, and end with 1 if anything was untyped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="one seed, as printed for an untyped end")
    arguments = parser.parse_args()
    given = [arguments.seed]

    def seeds(seconds: float) -> Callable[[], int | None]:
        until = time.monotonic() + seconds

        def next_seed() -> int | None:
            if arguments.seed is not None:
                return given.pop() if given else None
            return random.SystemRandom().getrandbits(48) if time.monotonic() < until else None

        return next_seed

    with EmbeddedValkey() as server, LocalEngine() as engine:
        counts = asyncio.run(fuzz_inputs(server.url, seeds(arguments.seconds * 0.7)))
        client = Mageflow(engine.client(), server.url, settings=Settings(metrics_port=0))
        echo = declare_echo(client)
        given = [arguments.seed]
        bare = bare_echo(engine.client())
        with running_worker(engine, client, "fuzzed", workflows=[echo]):
            metadata = asyncio.run(fuzz_metadata(bare, seeds(arguments.seconds * 0.3)))
    for each in (*counts.untyped, *metadata.untyped):
        print(each)
    print(f"inputs of calls and commands: {counts}")
    print(f"metadata of runs: {metadata}")
    sys.exit(1 if counts.untyped or metadata.untyped else 0)


if __name__ == "__main__":
    main()
