"""The operations over records: each one script, one round trip, safe to repeat."""

from mageflow.store.records.documents import DocumentOperations
from mageflow.store.records.failures import FailureOperations
from mageflow.store.records.lifecycle import LifecycleOperations
from mageflow.store.records.runs import RunOperations
from mageflow.store.records.sweep import SweepOperations

__all__ = ["Store"]


class Store(DocumentOperations, RunOperations, LifecycleOperations, SweepOperations, FailureOperations):
    """Signatures, chains and swarms in Redis.

    Every method is one round trip and raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` as
    `RedisPort.call` does, and `SignatureVersionError` for a record that another release has stored. Every script is
    idempotent, so an operation whose answer was lost may be repeated.

    Args:
        port: Connects to Redis.
        keys: Names of everything.
        settings: TTLs and intervals.
        interceptor: Observes loads and writes of signatures.
    """
