"""``mageflow start``, ``suspend``, ``resume``, ``interrupt`` and ``cancel`` on a real engine, worker and Valkey."""

import asyncio
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hatchet_sdk import Hatchet
from hatchet_sdk.config import ClientConfig
from pydantic import BaseModel

from mageflow import Settings, Status
from mageflow.cli import group
from mageflow.cli.cancel import cancel
from mageflow.cli.failures import complain
from mageflow.cli.inspect import inspect
from mageflow.cli.lifecycle import interrupt, resume, suspend
from mageflow.cli.start import start
from tests.integration.conftest import make_observed, until  # noqa: F401 - a fixture

QUICK = Settings(
    metrics_port=0, reconcile_grace_seconds=1.0, reconcile_check_seconds=1.0, reconcile_interval_seconds=0.2
)
COMMANDS = {
    "start": start,
    "suspend": suspend,
    "resume": resume,
    "interrupt": interrupt,
    "cancel": cancel,
    "inspect": inspect,
}


class Numbered(BaseModel):
    number: int = 0


@pytest.fixture
def client(make_observed: Any, mageflow_redis: Any) -> Any:  # noqa: F811
    """A client in a namespace: the commands have to find it by the key."""
    hatchet = Hatchet(config=ClientConfig(namespace="verbs"))
    yield make_observed(mageflow_redis.url, hatchet=hatchet, settings=QUICK).client
    assert mageflow_redis.keys_without_ttl() == []


@pytest.fixture
def verb(mageflow_redis: Any) -> Any:
    """Runs a command in a thread: it has an event loop of its own, and no code of the tasks."""

    async def run(name: str, *arguments: str) -> Result:
        command = [*arguments, "--redis-url", mageflow_redis.url, "--namespace", "verbs"]
        return await asyncio.to_thread(CliRunner().invoke, COMMANDS[name], command)

    return run


async def status_of(client: Any, key: str, wanted: Status) -> Any:
    async with asyncio.timeout(30):
        while (found := await client.load_signature(key)).status != wanted:
            await asyncio.sleep(0.05)
    return found


async def test_the_verbs_of_a_flow(client: Any, verb: Any, mageflow_worker: Any) -> None:
    """Each verb does what the method of the client does; who and why are in the history; one bad key stops no other."""
    began: list[dict[str, Any]] = []
    release = threading.Event()

    @client.task(name="hold")
    async def hold(message: dict[str, Any]) -> dict[str, Any]:
        began.append(message)
        while not release.is_set():
            await asyncio.sleep(0.02)
        return {"n": message.get("n", 0)}

    mageflow_worker.in_process(client, "verbs", workflows=[hold])
    release.set()
    signature = await client.sign(hold, n=1)
    waited = await verb("start", signature.key, "--input", '{"n": 3}', "--wait", "--json")
    assert waited.exit_code == 0, waited.output
    assert json.loads(waited.stdout)["done"] == [{"key": signature.key, "status": "done", "result": {"n": 3}}]
    started = await verb("start", signature.key, "--json")
    [run] = json.loads(started.stdout)["done"]
    await until(lambda: len(began) == 2, 20)
    assert began[1]["n"] == 1
    await status_of(client, signature.key, Status.DONE)
    assert (await client.load_signature(signature.key)).last_run.workflow_run_id == run["run"]

    release.clear()
    chain = await client.chain([hold, hold], "billing")
    said = await verb("start", chain.key.rpartition(":")[2])
    assert said.stdout == f"started, active  {chain.key}\n"
    await until(lambda: len(began) == 3, 20)
    held = await verb("suspend", "beef", chain.key, "--by", "ada", "--why", "bank \x1b[31mis down", "--json")
    assert held.exit_code == 1
    assert json.loads(held.stdout)["done"] == [{"key": chain.key, "status": "suspended"}]
    assert held.stderr == "mageflow: " + json.loads(held.stdout)["failed"][0]["error"] + "\n"
    history = (await client.load_signature(chain.key)).history
    assert (history[-1].by, history[-1].why) == ("ada", "bank \x1b[31mis down")
    assert (await verb("resume", chain.key)).stdout == f"active  {chain.key}\n"

    cancelled = await verb("cancel", chain.key, "--json")
    first_run = (await client.load_signature(f"{chain.key}#0")).last_run.workflow_run_id
    assert json.loads(cancelled.stdout)["done"] == [{"key": chain.key, "runs": [first_run], "taken_back": []}]
    await status_of(client, chain.key, Status.CANCELLED)
    again = await verb("cancel", chain.key)
    assert again.exit_code == 1
    assert "has no run under way" in again.stderr

    other = await client.chain([hold, hold], "billing")
    await verb("start", other.key)
    await until(lambda: len(began) == 4, 20)
    assert (await verb("interrupt", other.key, "--why", "wrong")).stdout == f"interrupted  {other.key}\n"
    assert (await status_of(client, other.key, Status.INTERRUPTED)).history[-1].why == "wrong"
    assert (await verb("start", other.key)).stdout == f"was started before, interrupted  {other.key}\n"
    release.set()


@pytest.mark.parametrize("damage", ["a step of it", "its header", "the id of a run"])
async def test_cancel_leaves_out_what_is_damaged(
    client: Any, verb: Any, mageflow_worker: Any, mageflow_redis: Any, damage: str
) -> None:
    """The runs of the other items and nested flows are cancelled, and the damaged flow is named."""
    began: list[int] = []
    release = threading.Event()

    @client.task(name="waits")
    async def waits(message: dict[str, Any]) -> dict[str, Any]:
        began.append(message["n"])
        while not release.is_set():
            await asyncio.sleep(0.02)
        return {}

    mageflow_worker.in_process(client, "damaged", workflows=[waits])
    chains = [await client.chain([await client.sign(waits, n=n), waits], name=f"nested-{n}") for n in range(3)]
    swarm = await client.swarm([*chains, await client.sign(waits, n=3)], closed=True)
    await verb("start", swarm.key)
    await until(lambda: len(began) == 4, 20)
    port, broken = client._flows._store.port, chains[1].key
    lost = (await client.load_signature(f"{broken}#0")).last_run.workflow_run_id
    state = {"status": "active", "epoch": 0, "attempt_number": 1, "changed_ms": 1, "run_id": f"flow:{swarm.key}"}
    if damage == "its header":
        await port.command("HSET", broken, "total", "x")
    else:
        await port.command("HSET", f"{broken}:members", "0", "{" if damage == "a step of it" else json.dumps(state))

    cancelled = await verb("cancel", swarm.key, "--json")
    printed = json.loads(cancelled.stdout)
    assert len(printed["done"]) == 1, cancelled.output
    [done] = printed["done"]
    assert (done["key"], len(done["runs"]), lost in done["runs"]) == (swarm.key, 3, False)
    [failed] = printed["failed"]
    assert (cancelled.exit_code, failed["key"]) == (1, swarm.key)
    assert failed["error"].startswith(f"the document under '{broken}")
    assert failed["error"] in cancelled.stderr
    for each in (chains[0], chains[2]):
        await status_of(client, each.key, Status.CANCELLED)
    release.set()


@pytest.mark.parametrize("later", ["--in", "--at"])
async def test_a_start_at_a_time(client: Any, verb: Any, mageflow_worker: Any, later: str) -> None:
    """A chain and a task signature begin then, with the message, and not before; a chain can be taken back."""
    began: list[tuple[int, datetime]] = []

    @client.task(name="nightly")
    async def nightly(message: dict[str, Any]) -> dict[str, Any]:
        began.append((message.get("n", 0), datetime.now(UTC)))
        return {}

    mageflow_worker.in_process(client, "nightly", workflows=[nightly])
    chain, other = [await client.chain([nightly, nightly], "billing") for _ in range(2)]
    signature = await client.sign(nightly)
    at = datetime.now(UTC) + timedelta(seconds=8)
    when = ("--in", "8s") if later == "--in" else ("--at", at.isoformat())
    tomorrow = await verb("start", chain.key, "--in", "1d", "--input", '{"n": 1}', "--json")
    assert json.loads(tomorrow.stdout)["done"][0]["status"] == "scheduled", tomorrow.output
    [wait] = json.loads((await verb("inspect", chain.key, "--json")).stdout)["waits"]
    assert wait["text"].startswith("its time, 20")

    replaced = await verb("start", chain.key, *when, "--input", '{"n": 3}')
    assert replaced.exit_code == 0, replaced.output
    assert replaced.stdout.startswith("starts at 20")
    in_hatchet = await verb("start", signature.key, *when, "--input", '{"n": 4}', "--json")
    [scheduled] = json.loads(in_hatchet.stdout)["done"]
    assert scheduled["key"] == signature.key
    assert abs((datetime.fromisoformat(scheduled["at"]) - at).total_seconds()) < 60
    assert len(scheduled["scheduled"]) == 1
    await verb("start", other.key, *when, "--input", '{"n": 5}')
    assert (await verb("interrupt", other.key)).exit_code == 0

    await until(lambda: len(began) == 3, 60)
    assert sorted(n for n, _ in began) == [0, 3, 4]  # the second step gets no message
    assert all(moment >= at - timedelta(seconds=1) for _, moment in began)
    assert (await status_of(client, chain.key, Status.DONE)).starts_at is None
    assert (await client.load_signature(other.key)).status == "interrupted"


async def test_cancel_takes_a_start_at_a_time_back(client: Any, verb: Any, mageflow_worker: Any) -> None:
    """Of a task signature in Hatchet, of a chain in Redis. What runs beside it is cancelled too."""
    began: list[int] = []
    release = threading.Event()

    @client.task(name="weekly")
    async def weekly(message: dict[str, Any]) -> dict[str, Any]:
        began.append(message.get("n", 0))
        while not release.is_set():
            await asyncio.sleep(0.02)
        return {}

    mageflow_worker.in_process(client, "weekly", workflows=[weekly])
    chain, signature = await client.chain([weekly, weekly], "billing"), await client.sign(weekly)
    for key in (chain.key, signature.key, signature.key):
        await verb("start", key, "--in", "12s", "--input", '{"n": 1}')
    await verb("start", signature.key, "--input", '{"n": 2}')
    await until(lambda: began == [2], 30)

    said = await verb("cancel", chain.key)
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith("start at 20")
    assert said.stdout.endswith(f" taken back  {chain.key}\n")
    both = json.loads((await verb("cancel", signature.key, "--json")).stdout)["done"][0]
    assert (len(both["runs"]), len(both["taken_back"])) == (1, 2)
    assert all(datetime.fromisoformat(each) > datetime.now(UTC) - timedelta(minutes=1) for each in both["taken_back"])
    await asyncio.sleep(14)
    assert began == [2]
    assert "no time to start" in (await verb("cancel", chain.key)).stderr
    release.set()
    assert (await verb("start", chain.key, "--wait")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--at", "2020-01-01T00:00Z"], "2020-01-01T00:00:00+00:00 has passed"),
        (["--at", "tomorrow"], "'tomorrow' is no time such as 2030-01-31T06:00"),
        (["--in", "10"], "'10' is no duration such as 90s"),
        (["--in", "0s"], "'0s' is no duration"),
        (["--in", "9" * 5000 + "d"], "is no duration"),
        (["--in", ""], "'' is no duration"),
        (["--in", "1h", "--at", "2130-01-01"], "--at and --in exclude each other"),
        (["--in", "1h", "--wait"], "--wait needs a start now"),
    ],
)
def test_a_wrong_time_is_refused(arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 2, with what can be written. Nothing is scheduled."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    refused = CliRunner().invoke(start, ["beef", *arguments])

    assert refused.exit_code == 2
    assert says in " ".join(refused.output.split())


async def test_a_run_that_fails_is_one_line(client: Any, verb: Any, mageflow_worker: Any) -> None:
    """``--wait`` prints why a run or a flow failed, and no traceback."""

    @client.task(name="raises")
    async def raises(message: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no such order")

    mageflow_worker.in_process(client, "raises", workflows=[raises])
    signature = await client.sign(raises)
    chain = await client.chain([raises, raises])
    for key in (signature.key, chain.key):
        failed = await verb("start", key, "--wait")
        assert failed.exit_code == 1
        assert "ValueError: no such order" in failed.stderr
        assert failed.stderr.startswith("mageflow: ")
        assert failed.stderr.count("\n") == 1
        assert "Traceback" not in failed.stderr


async def test_a_long_error_of_a_run_is_whole(client: Any, verb: Any, mageflow_worker: Any) -> None:
    """An error of pydantic has several lines: the command prints which field is wrong, in one line."""

    @client.task(name="numbered")
    async def numbered(order: Numbered) -> dict[str, Any]:
        return {"number": order.number}

    mageflow_worker.in_process(client, "numbered", workflows=[numbered])
    signature = await client.sign(numbered)
    failed = await verb("start", signature.key, "--input", '{"number": "x"}', "--wait")

    assert failed.exit_code == 1
    assert "1 validation error for Numbered number Input should be a valid integer" in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "\\" not in failed.stderr
    assert "Traceback" not in failed.stderr


async def test_a_start_that_waits_says_that_the_flow_is_suspended(
    client: Any, verb: Any, mageflow_worker: Any, monkeypatch: Any
) -> None:
    """The command would wait for ever without a word. It goes on when the flow is resumed."""
    announced: list[str] = []

    def note(sentence: str) -> None:
        announced.append(sentence)
        complain(sentence)

    monkeypatch.setattr("mageflow.cli.start.complain", note)

    @client.task(name="step")
    async def step(message: dict[str, Any]) -> dict[str, Any]:
        return {"done": True}

    mageflow_worker.in_process(client, "step", workflows=[step])
    chain = await client.chain([step, step])
    assert (await verb("suspend", chain.key)).exit_code == 0
    waiting = asyncio.create_task(verb("start", chain.key, "--wait"))
    await until(lambda: bool(announced), 30)
    assert (await verb("resume", chain.key)).exit_code == 0
    ended = await waiting

    assert ended.exit_code == 0
    assert '{"done": true}' in ended.stdout
    assert ended.stderr == f"mageflow: {chain.key!r} is suspended: this waits until it is resumed (mageflow resume)\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["start", "k", "--input", "{"], 2, "it is no JSON"),
        (["start", "k", "--input", "[1]"], 2, "a message is a JSON object"),
        (["suspend"], 2, "Missing argument 'KEY...'"),
        (["suspend", "beef"], 1, "mageflow: no signature is stored under 'beef'"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, message: str, mageflow_redis: Any, capsys: Any) -> None:
    """Status 2 for what can never work, 1 for a key that is not stored."""
    with pytest.raises(SystemExit) as ended:
        group.main([*arguments, "--redis-url", mageflow_redis.url])

    printed = capsys.readouterr()
    assert ended.value.code == status
    assert message in printed.err
    assert printed.out == ""


def test_hatchet_without_a_token_is_one_line(mageflow_redis: Any, monkeypatch: Any, capsys: Any) -> None:
    """The line says how to run the command with an engine of this machine."""
    for variable in ("HATCHET_CLIENT_TOKEN", "HATCHET_EMBEDDED_HANDSHAKE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SystemExit) as ended:
        group.main(["suspend", "mageflow:{/a}:chain:000a", "--redis-url", mageflow_redis.url])

    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err.startswith("mageflow: Hatchet is needed for this")
    assert printed.err.count("\n") == 1
