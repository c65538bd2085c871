"""``mageflow doctor``: each fault of the surroundings is a finding with its mend."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis

from mageflow.testing import EmbeddedValkey

MODULE = """
import logging
from hatchet_sdk import Hatchet
from mageflow import Mageflow

logging.basicConfig()
logging.getLogger("mageflow").addHandler(logging.StreamHandler())
client = Mageflow(Hatchet())


@client.task(name="examined")
async def examined(message: dict) -> dict:
    return {}
"""


UNREAD = """
from dataclasses import dataclass
from typing import TypedDict
from hatchet_sdk import Context, DurableContext, EmptyModel, Hatchet
from pydantic import BaseModel
from mageflow import Mageflow

client = Mageflow(Hatchet())


class Order(BaseModel):
    number: int = 1


@dataclass
class Item:
    number: int


@client.task(name="price")
async def price(order: Order, ctx: Context) -> None: ...


@client.durable_task()
async def pack(item: "Item", ctx: DurableContext) -> None: ...


nightly = client.workflow(name="nightly")


@nightly.task()
def collect(order: Order | None, ctx: Context) -> None: ...


@nightly.task(parents=[collect])
def report(empty: EmptyModel, ctx: Context) -> None: ...


@client.task(input_validator=Order)
async def with_validator(order: Order, ctx: Context) -> None: ...


@client.task()
@client.with_ctx
async def with_mark(order: Order, ctx: Context) -> None: ...


@client.task()
async def without_annotation(order, ctx) -> None: ...


daily = client.workflow(name="daily", input_validator=Order)


@daily.task()
def summarise(order: Order, ctx: Context) -> None: ...
"""


def doctor(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with these variables alone beside the ordinary ones."""
    foreign = ("HATCHET_", "MAGEFLOW_", "OTEL_")
    ordinary = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return subprocess.run(
        [sys.executable, "-m", "mageflow", "doctor", *arguments],
        cwd=directory,
        env={**ordinary, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def findings(run: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The findings by their check; of several of one check, the worst."""
    document = json.loads(run.stdout)
    order = ["ok", "skipped", "warning", "failure"]
    ranked = sorted(document["findings"], key=lambda each: order.index(each["level"]))
    assert all(each["mend"] for each in ranked if each["level"] in {"warning", "failure"})
    assert document["counts"] == {level: sum(each["level"] == level for each in ranked) for level in order}
    assert document["ok"] is (run.returncode == 0)
    return {each["check"]: each for each in ranked}


def test_sound_surroundings_have_no_failure(tmp_path, mageflow_engine, mageflow_redis):
    """Everything is examined, nothing fails, and Redis is as empty as before."""
    (tmp_path / "shop_module.py").write_text(MODULE)
    variables = {**mageflow_engine.environment(), "MAGEFLOW_REDIS_URL": mageflow_redis.url}
    run = doctor(tmp_path, "shop_module", "--json", **variables)
    found = findings(run)

    assert run.returncode == 0, run.stdout
    fine = {check for check, each in found.items() if each["level"] == "ok"}
    assert fine >= {
        *("versions", "distribution", "settings", "token", "engine", "latency", "clock", "ports", "module"),
        *("redis", "redis-server", "redis-rights", "redis-latency", "redis-clock", "instrumentor"),
    }
    assert found["redis-persistence"]["level"] == "warning"
    assert "appendonly yes" in found["redis-persistence"]["mend"]
    # The module has added a second handler.
    assert found["loggers"]["level"] == "warning"
    assert "telemetry.configure" in found["loggers"]["mend"]
    with redis.Redis.from_url(mageflow_redis.url) as client:
        assert client.dbsize() == 0


def test_without_a_token_the_rest_is_still_examined(tmp_path):
    """As in a shell that has nothing set: one failure, and what was left out says why."""
    run = doctor(tmp_path)

    assert run.returncode == 1
    assert "failure token" in " ".join(run.stdout.split())
    assert "→ set HATCHET_CLIENT_TOKEN" in run.stdout
    assert "No Redis is named" in " ".join(run.stdout.split())
    assert run.stdout.splitlines()[-1].endswith("1 failure, 2 skipped")
    assert "Traceback" not in run.stdout + run.stderr


def test_faults_of_hatchet_and_of_variables_are_named(tmp_path, mageflow_engine):
    """A refused token, a variable that is misspelt, a Redis that is away, a module that cannot be imported."""
    environment = mageflow_engine.environment()
    head = environment["HATCHET_CLIENT_TOKEN"].rpartition(".")[0]
    (tmp_path / "METADATA").write_text("")
    other = tmp_path / "mageflow-9.9.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mageflow\nVersion: 9.9.9\n")
    run = doctor(
        tmp_path,
        "absent_module",
        "--json",
        **{
            **environment,
            "HATCHET_CLIENT_TOKEN": f"{head}.wrong",
            "MAGEFLOW_METRIC_PORT": "18001",
            "MAGEFLOW_REDIS_URL": "redis://127.0.0.1:1/0",
            "PYTHONPATH": str(tmp_path),
        },
    )
    found = findings(run)

    assert run.returncode == 1
    assert {check for check, each in found.items() if each["level"] == "failure"} == {
        *("engine", "redis", "module", "distribution"),
    }
    assert "refuses a call" in found["engine"]["statement"]
    assert "HATCHET_CLIENT_TOKEN" in found["engine"]["mend"]
    assert "did you mean 'MAGEFLOW_METRICS_PORT'?" in found["settings"]["statement"]
    assert "does not answer" in found["redis"]["statement"]
    assert "pip uninstall" in found["distribution"]["mend"]


def test_an_address_without_hatchet_is_named(tmp_path, mageflow_engine):
    """The finding has the address and the way to an engine."""
    environment = {**mageflow_engine.environment(), "HATCHET_CLIENT_HOST_PORT": "127.0.0.1:1"}
    found = findings(doctor(tmp_path, "--json", **environment))

    assert found["engine"]["level"] == "failure"
    assert "127.0.0.1:1" in found["engine"]["statement"]
    assert "mageflow engine --redis" in found["engine"]["mend"]


@pytest.mark.parametrize(
    ("options", "user", "check", "word"),
    [
        ({"maxmemory": "64mb", "maxmemory-policy": "allkeys-lru"}, "", "redis-server", "noeviction"),
        ({}, "~mageflow:* +@all -zadd -hset", "redis-rights", "ACL"),
        ({}, "~other:* +@all", "redis-rights", "ACL"),
    ],
)
def test_faults_of_redis_are_named(tmp_path, options, user, check, word):
    """A server that evicts keys, and a user with too few rights."""
    with EmbeddedValkey(options=options) as server:
        url = server.url
        if user:
            with redis.Redis.from_url(url) as client:
                client.execute_command("ACL", "SETUSER", "lesser", "reset", "on", ">secret", *user.split())
            url = url.replace("redis://", "redis://lesser:secret@")
        found = findings(doctor(tmp_path, "--json", "--redis-url", url))

    assert found[check]["level"] == "failure"
    assert word in found[check]["mend"]
    if "-zadd" in user:
        assert "refuses what mageflow needs: hset, zadd." in found[check]["statement"]


def test_a_report_fits_a_narrow_terminal(tmp_path, mageflow_engine):
    """Each finding becomes a block of lines. No word is cut, also no address: a copy has it whole."""
    run = doctor(tmp_path, COLUMNS="40", **mageflow_engine.environment())

    assert run.returncode == 0, run.stdout
    assert [line for line in run.stdout.splitlines() if len(line) > 40 and len(line.split()) > 1] == []
    address = mageflow_engine.environment()["HATCHET_CLIENT_HOST_PORT"]
    assert address in run.stdout
    assert "→" in run.stdout


def test_input_types_that_hatchet_does_not_use_are_named(tmp_path, mageflow_engine):
    """A function of `(order: Order, ctx)` gets an `EmptyModel`: each such task is named, with the line to write."""
    (tmp_path / "shop_module.py").write_text(UNREAD)
    run = doctor(tmp_path, "shop_module", "--json", **mageflow_engine.environment())
    inputs = [each for each in json.loads(run.stdout)["findings"] if each["check"] == "inputs"]

    assert run.returncode == 0, run.stdout
    assert [(each["level"], each["statement"].partition(":")[0], each["mend"]) for each in inputs] == [
        (
            "warning",
            "price() takes Order and gets an EmptyModel",
            "write @client.task(input_validator=Order), or @client.with_ctx above the function",
        ),
        (
            "warning",
            "pack() takes Item and gets an EmptyModel",
            "write @client.durable_task(input_validator=Item), or @client.with_ctx above the function",
        ),
        (
            "warning",
            "collect() takes Order and gets an EmptyModel",
            "write client.workflow(name='nightly', input_validator=Order)",
        ),
    ]


def test_input_types_that_are_used_are_fine(tmp_path, mageflow_engine):
    """The module of the other tests takes its message in the type of its annotation."""
    (tmp_path / "shop_module.py").write_text(MODULE)
    found = findings(doctor(tmp_path, "shop_module", "--json", **mageflow_engine.environment()))

    assert found["inputs"]["level"] == "ok"
