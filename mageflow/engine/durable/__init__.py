"""Durable tasks: a log per task that every invocation replays, and the stream that the worker uses for it."""

from mageflow.engine.durable.tasks import DurableStream, DurableTasks

__all__ = ["DurableStream", "DurableTasks"]
