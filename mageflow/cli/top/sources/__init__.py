"""Where the live view gets its data: ``/metrics`` and ``/debug/runs`` of workers, and Redis. Reads only."""

from mageflow.cli.top.sources.endpoints import endpoint_candidates
from mageflow.cli.top.sources.reader import Reader
from mageflow.cli.top.sources.snapshot import Snapshot

__all__ = ["Reader", "Snapshot", "endpoint_candidates"]
