"""The endpoint over real sockets: paths, health, who may see locks, what happens when it breaks."""

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import cast

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mageflow.telemetry import exposition
from mageflow.telemetry.exposition import MAX_CONNECTIONS, Endpoint, EndpointApp, bind
from mageflow.telemetry.guards import Guards
from mageflow.telemetry.instruments import instruments_for
from mageflow.telemetry.names import metrics
from mageflow.testing import capture_logs, samples


class Health:
    """How long ago the loop ticked, and what the locks look like."""

    seconds = 0.0
    locks: object = {"holders": [{"task": "send", "run_id": "r-1"}], "waiters": [], "cycles": []}


def get(url: str, **headers: str) -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own endpoint
    try:
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def guards() -> Guards:
    return Guards(lambda _: None)


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("orders_total", "The user's own.", registry=registry).inc(3, exemplar={"trace_id": "0" * 32})
    return registry


@pytest.fixture
def app(health: Health, guards: Guards, registry: CollectorRegistry) -> EndpointApp:
    return EndpointApp(
        registry,
        seconds_since_tick=lambda: health.seconds,
        lock_report=lambda: health.locks,
        run_report=dict,
        guard=guards.exposition,
    )


@pytest.fixture
def base(app: EndpointApp) -> Iterator[str]:
    endpoint = bind("127.0.0.1", [0])
    assert endpoint is not None
    endpoint.start(app)
    yield f"http://127.0.0.1:{endpoint.port}"
    endpoint.stop()


def test_metrics_are_negotiated(base: str):
    """OpenMetrics, with exemplars, to a client that accepts it; text to others. The user's metrics ride along."""
    status, kind, body = get(f"{base}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.partition(";")[0]) == (200, "application/openmetrics-text")
    assert 'orders_total 3.0 # {trace_id="' in body
    assert body.endswith("# EOF\n")
    status, kind, body = get(f"{base}/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert "orders_total 3.0\n" in body


@pytest.mark.parametrize(("seconds", "status", "word"), [(0.4, 200, "ok"), (4.9, 200, "ok"), (5.1, 503, "stalled")])
def test_health_is_that_of_the_loop_that_runs_the_tasks(
    base: str, health: Health, seconds: float, status: int, word: str
):
    """A loop that has not ticked for five seconds cannot take work."""
    health.seconds = seconds

    answered, kind, body = get(f"{base}/healthz")
    assert (answered, kind.partition(";")[0]) == (status, "application/json")
    assert json.loads(body) == {"status": word, "seconds_since_tick": seconds}


def test_locks_are_shown_to_peers_on_this_host(base: str, health: Health):
    """Run and trace ids of holders and waiters, as JSON."""
    status, _, body = get(f"{base}/debug/locks")

    assert status == 200
    assert json.loads(body) == health.locks


@pytest.mark.parametrize("path", ["/debug/locks", "/debug/runs"])
@pytest.mark.parametrize("peer", ["10.0.0.7", "192.0.2.1", "2001:db8::1", "", "::ffff:10.0.0.7"])
def test_locks_and_runs_are_shown_to_this_host_only(app: EndpointApp, peer: str, path: str):
    """On any address that the endpoint is bound to."""
    answers: list[str] = []
    app({"PATH_INFO": path, "REMOTE_ADDR": peer}, lambda status, _: answers.append(status))
    assert answers == ["403 Forbidden"]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_every_loopback_address_is_this_host(app: EndpointApp, peer: str):
    """IPv4, IPv6, and one as the other."""
    answers: list[str] = []
    app({"PATH_INFO": "/debug/locks", "REMOTE_ADDR": peer}, lambda status, _: answers.append(status))
    assert answers == ["200 OK"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:18001", "127.0.0.1:18001", "[::1]:18001", "127.8.8.8"])
def test_locks_are_shown_under_a_name_of_this_host(base: str, host: str):
    """With a port or without."""
    assert get(f"{base}/debug/locks", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example:18001", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7", "["]
)
def test_locks_are_not_shown_under_another_name(base: str, host: str):
    """A web page may give its own name the address 127.0.0.1, and a browser of this host would show it the answer."""
    status, _, body = get(f"{base}/debug/locks", Host=host)
    assert (status, "run_id" in body) == (403, False)
    assert get(f"{base}/metrics", Host=host)[0] == 200, "Prometheus scrapes under any name"


def test_other_paths_say_what_there_is(base: str):
    """404 with the list."""
    status, _, body = get(f"{base}/")
    assert status == 404
    assert "/metrics" in body


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text;version=1.0.0"])
@pytest.mark.parametrize("query", ["", "?name[]=mageflow_task_runs_total&name[]=orders_total&name[]=queue_depth"])
def test_a_collector_that_raises_hides_its_own_metrics_only(
    base: str, registry: CollectorRegistry, guards: Guards, accept: str, query: str
):
    """When it is read, in its middle, or where it is written because a value is no number. The text stays inside."""

    class Broken(Collector):
        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("half", "Half of it.", 1.0)
            raise ValueError("secret")

        def describe(self) -> list[Metric]:
            return []

    class NoNumber(Broken):
        def collect(self) -> Iterator[Metric]:
            yield GaugeMetricFamily("stock", "Not a number.", cast("float", "many"))

    def unreachable() -> float:
        raise ConnectionError("secret")

    instruments = instruments_for(registry, max_series=1000)
    instruments.inc(metrics.TASK_RUNS, metrics.OTHER, "succeeded")
    Gauge("queue_depth", "Read when scraped.", registry=registry).set_function(unreachable)
    if not query:
        registry.register(Broken())
        registry.register(NoNumber())
    with capture_logs() as logs:
        status, _, body = get(f"{base}/metrics{query}", Accept=accept)

    assert status == 200
    served = samples(body)
    assert served.value("orders_total") == 3.0
    assert served.value("mageflow_task_runs_total", task=metrics.OTHER, outcome="succeeded") == 1.0
    assert not {"half", "stock", "queue_depth", "secret"} & set(body.replace("{", " ").split())
    assert body.endswith("# EOF\n") is bool(accept)
    assert body.count("# EOF") == bool(accept)
    found = [(each["signal"], each["site"], each["error_type"]) for each in logs.named("mageflow.telemetry.error")]
    broken = [("exposition", "collector Broken", "ValueError"), ("exposition", "collector NoNumber", "ValueError")]
    assert sorted(found) == [*(broken if not query else []), ("exposition", "collector queue_depth", "ConnectionError")]
    assert guards.exposition.total == len(found)


def test_locks_that_cannot_be_shown_are_a_500(base: str, health: Health, guards: Guards):
    """For anything that the report returns or raises."""
    health.locks = {("a", "tuple"): "no JSON key"}

    assert get(f"{base}/debug/locks")[0] == 500
    assert guards.exposition.total == 1


def test_the_lowest_free_port_is_taken():
    """With a port in use the next one is tried, in the order given."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        endpoint = bind("127.0.0.1", [port, 0])
        assert endpoint is not None
        assert endpoint.port != port
        endpoint.stop()
        assert bind("127.0.0.1", [port]) is None


def test_a_port_is_free_again_at_once(app: EndpointApp):
    """A restarted worker gets its old port back, connections of the old one notwithstanding."""
    first = bind("127.0.0.1", [0])
    assert first is not None
    first.start(app)
    assert get(f"http://127.0.0.1:{first.port}/healthz")[0] == 200
    first.stop()
    second = bind("127.0.0.1", [first.port])
    assert second is not None
    assert second.port == first.port
    second.stop()


def test_an_address_that_is_not_ours_is_no_endpoint():
    """Bind failure is None, never an exception."""
    assert bind("192.0.2.1", [0]) is None
    assert bind("no such host.invalid", [0]) is None


def test_ipv6_is_served(app: EndpointApp):
    """Its URL has brackets."""
    endpoint = bind("::1", [0])
    if endpoint is None:
        pytest.skip("no IPv6 here")
    endpoint.start(app)
    try:
        assert endpoint.url == f"http://[::1]:{endpoint.port}/metrics"
        assert get(endpoint.url)[0] == 200
    finally:
        endpoint.stop()


def test_a_silent_peer_does_not_block_others(base: str):
    """Every request has a thread of its own."""
    port = int(base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        assert get(f"{base}/healthz")[0] == 200


def serving_threads() -> int:
    return sum(thread.name == "mageflow-metrics" for thread in threading.enumerate())


def test_silent_peers_take_a_bounded_number_of_threads(base: str, guards: Guards):
    """The peer that has been silent for longest gives its place to the next: others are served, and it is counted."""
    port = int(base.rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(20 * MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"G")
        assert get(f"{base}/metrics")[0] == 200
        assert get(f"{base}/debug/locks")[0] == 200
        assert serving_threads() <= MAX_CONNECTIONS + 1
        assert guards.exposition.total >= 18 * MAX_CONNECTIONS


class Rendered:
    """Counts how often the metrics are rendered; it can take long."""

    count, seconds = 0, 0.0

    def collect(self) -> list[object]:
        self.count += 1
        time.sleep(self.seconds)
        return []

    def describe(self) -> list[object]:
        return []


def test_a_peer_that_is_turned_away_costs_no_rendering(base: str, registry: CollectorRegistry):
    """The end of its connection is not the end of its headers: rendering holds the interpreter."""
    rendered = Rendered()
    registry.register(rendered)  # type: ignore[arg-type]
    with ExitStack() as stack:
        for _ in range(4 * MAX_CONNECTIONS):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))))
            peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert get(f"{base}/metrics")[0] == 200
        assert rendered.count == 1


def test_a_request_that_has_waited_too_long_costs_no_rendering(
    base: str, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
):
    """Requests wait for each other; those whose connection was ended meanwhile are not answered."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 1.0)
    rendered = Rendered()
    registry.register(rendered)  # type: ignore[arg-type]
    rendered.seconds = 3.0
    with ExitStack() as stack:
        peers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2])), timeout=60))
            for _ in range(MAX_CONNECTIONS)
        ]
        for peer in peers:
            peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [peer.recv(1) for peer in peers] == [b""] * MAX_CONNECTIONS
        while serving_threads() > 1:
            time.sleep(0.01)
    assert rendered.count <= 1


def test_a_request_has_a_limited_time(base: str, monkeypatch: pytest.MonkeyPatch):
    """In whole: a peer that sends a byte now and then does not keep its connection."""
    monkeypatch.setattr(exposition, "REQUEST_SECONDS", 1.0)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))) as peer, suppress(OSError):
        while time.monotonic() - started < 20.0:
            peer.sendall(b"G")  # fails once the other side has closed
            time.sleep(0.1)
    assert 1.0 <= time.monotonic() - started < 20.0


def test_a_stopped_endpoint_keeps_no_connection(app: EndpointApp):
    """Also not that of a peer that never sent a request."""
    endpoint = bind("127.0.0.1", [0])
    assert endpoint is not None
    endpoint.start(app)
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as peer:
        while serving_threads() < 2:
            time.sleep(0.01)
        endpoint.stop()
        assert peer.recv(1) == b""


def test_serving_threads_are_daemons(app: EndpointApp):
    """A worker that is killed does not wait for its endpoint."""
    endpoint: Endpoint | None = bind("127.0.0.1", [0])
    assert endpoint is not None
    endpoint.start(app)
    serving = [thread for thread in threading.enumerate() if thread.name == "mageflow-metrics"]
    assert serving
    assert all(thread.daemon for thread in serving)
    endpoint.stop()
    assert serving_threads() == 0
