"""Where the live view gets its data: ``/metrics`` and ``/debug/runs`` of workers, and Redis. Reads only."""

from mageflow.cli.top.sources.endpoints import endpoint_candidates, get_text
from mageflow.cli.top.sources.flows import read_flow
from mageflow.cli.top.sources.reader import Reader
from mageflow.cli.top.sources.snapshot import FlowNode, MemberNode, RunAttempt, Snapshot, TaskRow

__all__ = [
    "FlowNode",
    "MemberNode",
    "Reader",
    "RunAttempt",
    "Snapshot",
    "TaskRow",
    "endpoint_candidates",
    "get_text",
    "read_flow",
]
