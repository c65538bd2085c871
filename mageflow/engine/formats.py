"""Times in the two forms of the protocol: protobuf timestamps for gRPC, ISO 8601 for REST."""

from __future__ import annotations

from datetime import datetime

from mageflow.engine.contracts import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """Return a time as a protobuf timestamp."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def iso(moment: datetime) -> str:
    """Return a time as ISO 8601 text with zone and microseconds."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
