"""The JSON object of ``mageflow inspect --json``."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from mageflow.cli.inspect.timeline import Timeline
from mageflow.cli.inspect.waits import Wait
from mageflow.signatures import FailureRecord, LastRun
from mageflow.store import Description

__all__ = ["inspect_document", "trace_id"]

_TRACEPARENT_FIELDS = 4


def trace_id(traceparent: str) -> str:
    """The trace id of a ``traceparent``; empty if it has none."""
    fields = traceparent.split("-")
    return fields[1] if len(fields) == _TRACEPARENT_FIELDS else ""


def inspect_document(
    described: Description, timeline: Timeline | None, waits: Sequence[Wait], *, values: bool
) -> dict[str, Any]:
    """What is stored, as JSON values.

    Args:
        described: What is stored.
        timeline: When its members ran; None before the first.
        waits: What it waits for now.
        values: Whether to include the values bound to tasks.
    """
    signature = described.signature
    document: dict[str, Any] = {
        "key": signature.key,
        "kind": described.kind,
        "name": described.name,
        "status": signature.status,
        "at": _iso(described.at),
        "created_at": _iso(signature.created_at),
        "updated_at": _iso(signature.updated_at),
        "started_at": _iso(described.started_at),
        "ended_at": _iso(described.ended_at),
        "expires_in_s": described.expires_in_seconds,
        "parent": described.parent,
        "attempts": signature.attempts,
        "run": _run(signature.last_run),
        "trace_id": trace_id(signature.traceparent),
        "error": _error(signature.last_error),
        "history": [each.model_dump(mode="json") for each in signature.history],
        "delivery": {
            "unsent": described.unsent,
            "live": described.live,
            "held": described.held,
            "checked_in_s": described.checked_in_seconds,
        },
        "progress": _progress(described),
        "waits": [asdict(each) for each in waits],
        "timeline": None if timeline is None else _timeline(timeline),
        "members": [
            {
                "path": str(each.path),
                "key": each.key,
                "role": each.role,
                "task": each.task,
                "flow": each.flow_key,
                "status": each.status,
                "stage": each.stage,
                "attempts": each.attempts,
                "changed_at": _iso(each.changed_at),
                "run": _run(each.last_run),
                "trace_id": trace_id(each.traceparent),
                "error": _error(each.last_error),
                "result_bytes": each.result_bytes,
                **({"values": each.values} if values else {}),
            }
            for each in described.members
        ],
        "members_first": described.first,
        "members_total": described.members_total,
    }
    if values:
        document["values"] = signature.kwargs
    return document


def _timeline(timeline: Timeline) -> dict[str, Any]:
    return {
        "began_at": _iso(datetime.fromtimestamp(timeline.began_at, UTC)),
        "seconds": timeline.seconds,
        "budget": dict(timeline.budget),
        "spans": [
            {
                "path": str(each.member.path),
                "begin_s": each.begin_s,
                "seconds": each.seconds,
                "parts": dict(each.parts),
            }
            for each in timeline.spans
        ],
    }


def _progress(described: Description) -> dict[str, Any]:
    signature = described.signature
    if signature.kind == "chain":
        return {"step": signature.step, "steps": len(signature.steps)}
    if signature.kind == "swarm":
        names = ("is_closed", "total", "pending", "running", "succeeded", "failed")
        return {**{name: getattr(signature, name) for name in names}, **signature.config.model_dump()}
    return {"task": signature.task_name, "identifiers": signature.task_identifiers, "flow": signature.flow_key}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None


def _run(run: LastRun | None) -> dict[str, Any] | None:
    return run.model_dump() if run is not None else None


def _error(error: FailureRecord | None) -> dict[str, Any] | None:
    return error.model_dump(mode="json") if error is not None else None
