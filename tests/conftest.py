"""What every test of this repository can rely on.

The fixtures ``mageflow_*`` come from the package's own plugin, found by pytest through its entry point as in any
program that has mageflow installed. Nothing here imports the SDK: a test that needs neither engine nor worker
starts at once.
"""

import contextlib
import gc
import importlib
import os
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import client as processes
from tests.run_watcher import watch_this_run

ROOT = Path(__file__).parent.parent

# What a developer has set for a real Hatchet must not lead a test there. `mageflow_engine` sets its own.
_FOREIGN = ("HATCHET_", "MAGEFLOW_", "REDIS_URL", "OTEL_", "PROMETHEUS_MULTIPROC_DIR")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what a developer uses who suspects the forks."""
    parser.addoption(
        "--new-interpreters", action="store_true", help="start every program as a new interpreter, never by a fork"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the developer's own settings out of the environment before anything reads them."""
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    if not config.pluginmanager.has_plugin("mageflow"):
        raise pytest.UsageError("the package is not installed here: pip install -e '.[test]'")
    if not hasattr(config, "workerinput"):  # a process of pytest-xdist belongs to the run that has started it
        watch_this_run()
    if not config.getoption("new_interpreters"):
        processes.install()
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # it begins with the files that have the most tests, slow or not


def pytest_unconfigure() -> None:
    """End the server of forks, if a test has used it."""
    processes.uninstall()


def pytest_collection(session: pytest.Session) -> None:
    """Import the test files, each parallel process from another one on.

    pytest rewrites the assertions of a file that is imported for the first time, and keeps the result. Each process
    would do this for every file, at the same moment as the others: 35 seconds of CPU for six of them.
    """
    gc.disable()  # until `pytest_collection_finish`: nothing of what is collected becomes garbage
    parallel: dict[str, Any] = getattr(session.config, "workerinput", {})
    if not parallel or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
    first = len(files) * int(parallel["workerid"].removeprefix("gw")) // parallel["workercount"]
    for path in files[first:] + files[:first]:
        with contextlib.suppress(Exception, pytest.skip.Exception):  # the collection of the file reports it
            importlib.import_module(".".join(path.with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Take what was collected out of the sight of the collector, which would walk through it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that parallel processes end together: no file is divided among them."""
    weights = Counter[Path]()
    for item in items:
        weights[item.path] += 1 if item.get_closest_marker("slow") is None else 11
    items.sort(key=lambda item: -weights[item.path])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start new interpreters in the tests that are about them."""
    processes.ForkingPopen.uses_server = item.get_closest_marker("new_interpreters") is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the captured output of a test sendable: a lone surrogate in it would end the process that runs the tests.

    Tests log texts that are no UTF-8 on purpose, and parallel processes send their reports as UTF-8.
    """
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Leave nothing of a test to the tests after it: which they are is another each time."""
    result = yield
    _clear_context()
    if getattr(sys, "last_value", None) is not None:
        _free_failure()
    return result


def _clear_context() -> None:
    """Unbind log fields, and end spans that are current. Only what is imported can have left something."""
    if fields := sys.modules.get("structlog.contextvars"):
        fields.clear_contextvars()
    if traces := sys.modules.get("opentelemetry.context"):
        traces.attach(traces.Context())


def _free_failure() -> None:
    """Free what a failed test has left: otherwise its sockets and processes are warnings of a later test, and fail it.

    Its variables live as long as its exception, which pytest keeps for a debugger until another test fails.
    """
    traceback.clear_frames(sys.last_value.__traceback__)
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    as_before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    finally:
        sys.unraisablehook = as_before


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT
