"""Each test has its own client, registry and tracer provider, on the session's engine."""

import asyncio
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

import pytest
from hatchet_sdk import Hatchet
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from mageflow import Mageflow, Settings
from mageflow.testing.capture import Samples, SpanCapture, capture_spans, samples

MakeClient = Callable[..., Mageflow]

LOST_AFTER_SECONDS = 10.0
"""For an engine whose workers are killed. The SDK sends a heartbeat every four seconds, on a busy machine later: with
little more than that, a worker that lives is taken for dead, and its runs begin again elsewhere."""


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for a condition and assert it. The limit is for a busy machine: a wait ends when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.02)


def scrape(port: int) -> Samples:
    """The samples that a worker's endpoint serves now."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return samples(response.read().decode())


class Observed:
    """A client with its metrics and spans."""

    def __init__(self, client: Mageflow, registry: CollectorRegistry, spans: SpanCapture) -> None:
        self.client = client
        self.registry = registry
        self.spans = spans

    @property
    def samples(self) -> Samples:
        return samples(self.registry)


@pytest.fixture
def make_observed(mageflow_engine: Any) -> Generator[Callable[..., Observed]]:
    """Make clients that share nothing."""
    captures = ExitStack()

    def make(redis_client: Any = None, *, hatchet: Hatchet | None = None, **options: Any) -> Observed:
        registry, provider = CollectorRegistry(), TracerProvider()
        spans = captures.enter_context(capture_spans(provider))
        options.setdefault("settings", Settings(metrics_port=0))
        client = Mageflow(hatchet or Hatchet(), redis_client, registry=registry, tracer_provider=provider, **options)
        return Observed(client, registry, spans)

    with captures:
        yield make


@pytest.fixture
def observed(make_observed: Callable[..., Observed]) -> Observed:
    """One such client, without Redis."""
    return make_observed()
