"""``mageflow locks``: the same facts as a table, a tree and JSON."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from mageflow.locks import LockService
from mageflow.testing.valkey import EmbeddedValkey
from tests.locks.runs import Gate, attempt, start, waiting


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    script = Path(sys.executable).with_name("mageflow")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAGEFLOW_", "REDIS_"))}
    return subprocess.run(
        [str(script), "locks", *arguments], capture_output=True, text=True, check=False, env=environment, timeout=30
    )


async def hold_and_wait(locks: LockService) -> list[Gate]:
    """r1 holds orders; r2 holds stock and waits for orders; r3 waits for stock."""
    gates = [Gate(), Gate()]

    async def first() -> None:
        async with locks.resource("orders").acquire("customer-4711"):
            await gates[0].pass_through()

    async def second() -> None:
        async with locks.resource("stock").acquire():
            await gates[1].pass_through()
            async with locks.resource("orders").acquire("customer-4711"):
                pass

    async def third() -> None:
        async with locks.resource("stock").acquire():
            pass

    runs = [start(first(), within=attempt("r1", task="pay"))]
    await gates[0].reached()
    runs.append(start(second(), within=attempt("r2", task="pack")))
    await gates[1].reached()
    gates[1].open()
    await waiting(locks, 1)
    runs.append(start(third(), within=attempt("r3", task="count")))
    await waiting(locks, 2)
    gates[0].tasks = runs  # type: ignore[attr-defined]
    return gates


async def test_everything_is_in_the_json(locks: LockService, valkey: EmbeddedValkey) -> None:
    """Holders, waiters and their holders, totals; the key as a hash, or raw on request."""
    gates = await hold_and_wait(locks)
    shown = command("--redis-url", valkey.url, "--namespace", "tests", "--json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert {(each["lock"], each["task"], each["run_id"]) for each in document["holders"]} == {
        ("orders", "pay", "r1"),
        ("stock", "pack", "r2"),
    }
    assert {(each["lock"], each["task"], each["holder_task"], each["position"]) for each in document["waiters"]} == {
        ("orders", "pack", "pay", 1),
        ("stock", "count", "pack", 1),
    }
    assert document["cycles"] == []
    assert document["longest_path"] == 3
    assert "customer-4711" not in shown.stdout
    raw = command("--redis-url", valkey.url, "--namespace", "tests", "--json", "--raw-keys")
    assert "customer-4711" in raw.stdout
    await finish(gates)


async def test_terminal_output_is_a_table_and_a_tree(locks: LockService, valkey: EmbeddedValkey) -> None:
    """The chain of waits is readable top down: who holds, who waits, who waits for those."""
    gates = await hold_and_wait(locks)
    shown = command("--redis-url", valkey.url, "--namespace", "tests")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    tree = lines[next(index for index, line in enumerate(lines) if "who waits for whom" in line) :]
    assert "pay holds orders(" in tree[1]
    assert "1. pack waits for orders(" in tree[2]
    assert "1. count waits for stock" in tree[3]
    assert len(tree[2]) - len(tree[2].lstrip("│├└─ ")) < len(tree[3]) - len(tree[3].lstrip("│├└─ "))
    assert "2 held, 2 waiting, longest chain of waits 3" in shown.stdout
    await finish(gates)


async def hold_and_wait_with_long_ids(locks: LockService, valkey: EmbeddedValkey) -> tuple[list[str], str]:
    """The run ids and trace ids of a holder and a waiter, and what the command prints."""
    run_ids = ["4fe1a2b3-0000-4000-8000-0123456789ab", "5fe1a2b3-0000-4000-8000-0123456789ab"]
    gate = Gate()

    async def first() -> None:
        async with locks.resource("orders-of-the-warehouse").acquire("customer-4711"):
            await gate.pass_through()

    async def second() -> None:
        async with locks.resource("orders-of-the-warehouse").acquire("customer-4711"):
            pass

    runs = [start(first(), within=attempt(run_ids[0], task="book-the-payment-of-an-order"))]
    await gate.reached()
    runs.append(start(second(), within=attempt(run_ids[1], task="pack")))
    await waiting(locks, 1)
    shown = command("--redis-url", valkey.url, "--namespace", "tests")
    document = json.loads(command("--redis-url", valkey.url, "--namespace", "tests", "--json").stdout)
    gate.open()
    await asyncio.gather(*runs)
    assert shown.returncode == 0, shown.stderr
    [holder] = document["holders"]
    return [*run_ids, holder["trace_id"], holder["resource"], str(holder["token"])], shown.stdout


@pytest.mark.parametrize(("columns", "lines_of_a_holder"), [(40, 14), (80, 4), (120, 2), (200, 1)])
async def test_every_width_has_every_id_whole(
    columns: int, lines_of_a_holder: int, locks: LockService, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table where it fits, else lines of headings and values. A line is too long only if one word is."""
    monkeypatch.setenv("COLUMNS", str(columns))
    ids, shown = await hold_and_wait_with_long_ids(locks, valkey)

    words = shown.replace("(", " ").replace(")", " ").split()
    assert [each for each in ids if each and each not in words] == []
    assert "…" not in shown
    assert [line for line in shown.splitlines() if len(line.rstrip()) > columns and len(line.split()) > 1] == []
    lines = [line for line in shown.splitlines() if line.strip()]
    waits = next(number for number, line in enumerate(lines) if line.startswith(("who waits", "waits  ")))
    assert waits - (2 if columns == 200 else 0) <= lines_of_a_holder, shown


async def test_a_pipe_has_a_line_for_each_holder(
    locks: LockService, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``mageflow locks | grep RUN`` finds the run with its task, trace and token: a pipe has no width."""
    monkeypatch.delenv("COLUMNS", raising=False)
    ids, shown = await hold_and_wait_with_long_ids(locks, valkey)

    [line] = [line for line in shown.splitlines() if ids[0] in line and "lease" not in line and "holds" not in line]
    assert len(line) > 180
    expected = [ids[0], *ids[2:], "book-the-payment-of-an-order"]
    assert [each for each in expected if each and each not in line.split()] == []


def test_no_locks_and_no_redis_are_one_clear_line(valkey: EmbeddedValkey) -> None:
    """An empty Redis gives a line and status 0; one that is unreachable a line and status 1."""
    empty = command("--redis-url", valkey.url)
    assert (empty.returncode, empty.stdout) == (0, "no lock is held\n")
    away = command("--redis-url", "redis://127.0.0.1:1/0")
    assert away.returncode == 1
    assert away.stderr.startswith("mageflow: lock_snapshot needs Redis")
    assert len(away.stderr.splitlines()) == 1
    nowhere = command()
    assert nowhere.returncode == 2
    assert "Traceback" not in nowhere.stderr


async def finish(gates: list[Gate]) -> None:
    gates[0].open()
    for run in gates[0].tasks:  # type: ignore[attr-defined]
        await run


@pytest.fixture
def locks(services: object) -> LockService:
    """Locks in the namespace of the command, as the SDK writes it."""
    return services(namespace="tests_")  # type: ignore[operator]


async def test_a_damaged_lock_hides_no_other(locks: LockService, valkey: EmbeddedValkey) -> None:
    """Records of locks, waits and owners that cannot be read are left out, and the rest is shown."""
    gates = await hold_and_wait(locks)
    with redis.Redis.from_url(valkey.url) as client:
        keys = [key.decode() for key in client.keys("*:locks:*")]
        for suffix in ("locks", "owners", "waits"):
            [key] = [each for each in keys if each.endswith(f":{suffix}")]
            for name, text in (("a", "{x"), ("b", "[]"), ("c", "5"), ("d", b"\xff"), ("e", '{"owner_id":"a"}')):
                client.hset(key, name, text)
        [queue] = [each for each in keys if each.endswith(":queue")]
        client.zadd(queue, {"no zero byte": 0, b"lock\x00\xff": 0})
    shown = command("--redis-url", valkey.url, "--namespace", "tests", "--json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout)
    assert sorted(each["lock"] for each in document["holders"]) == ["orders", "stock"]
    assert len(document["waiters"]) == 2
    drawn = command("--redis-url", valkey.url, "--namespace", "tests")
    assert drawn.returncode == 0, drawn.stderr
    with redis.Redis.from_url(valkey.url) as client:
        for suffix in ("locks", "owners", "waits"):
            [key] = [each for each in keys if each.endswith(f":{suffix}")]
            client.hdel(key, *"abcde")
        client.zrem(queue, "no zero byte", b"lock\x00\xff")
    await finish(gates)
