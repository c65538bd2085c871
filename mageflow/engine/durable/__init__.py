"""Durable tasks: an event log per task, replayed by every invocation, and the stream the worker talks over."""

from mageflow.engine.durable.tasks import Durable, DurableStream

__all__ = ["Durable", "DurableStream"]
