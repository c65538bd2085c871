"""Stored fields by name: the header of a record and the state of a member, as the scripts write them.

``lua/lib_record.lua`` and ``docs/storage.md`` explain every field. No other module of Python names them.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mageflow._frozen import frozen
from mageflow.signatures import FailureRecord, HistoryEntry, LastRun, Status, SwarmConfig

__all__ = ["StoredHeader", "StoredState", "chain_header", "moment", "swarm_header", "task_header"]

_STATUSES: Final = {"queued": Status.PENDING, "sent": Status.PENDING, "held": Status.SUSPENDED}
"""The status that a user sees for the words that only members have."""


def moment(milliseconds: str | float) -> datetime:
    """A stored time: milliseconds since the epoch by the clock of Redis."""
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def task_header(name: str) -> dict[str, str]:
    """Header fields of a new signature, beside those that every record has."""
    return {"name": name}


def chain_header(name: str, total: int) -> dict[str, str]:
    """Header fields of a new chain, beside those that every record has."""
    return {"name": name, "total": str(total), "step": "0"}


def swarm_header(name: str, total: int, config: SwarmConfig, *, is_closed: bool) -> dict[str, str]:
    """Header fields of a new swarm, beside those that every record has."""
    return {
        "name": name,
        "total": str(total),
        "next_item": "0",
        "running": "0",
        "succeeded": "0",
        "failed": "0",
        "closed": "1" if is_closed else "0",
        "max_running": str(config.max_concurrency),
        "stop_after_failures": str(config.stop_after_n_failures or 0),
        "max_items": str(config.max_task_allowed or 0),
        "refill_linger_ms": str(config.refill_linger_ms),
        "refill_batch": str(config.refill_batch),
    }


@frozen
class StoredHeader:
    """The header of a record. A property raises `ValueError` or `KeyError` when its field is damaged."""

    fields: Mapping[str, str]

    @classmethod
    def read(cls, flat: Sequence[str]) -> "StoredHeader":
        """Read the flat list of a script's reply."""
        return cls(dict(zip(flat[::2], flat[1::2], strict=True)))

    @property
    def name(self) -> str:
        """The task's name, or the flow's name in telemetry."""
        return self.fields.get("name", "")

    @property
    def status(self) -> Status:
        """The record's status."""
        return Status(self.fields["status"])

    @property
    def created_at(self) -> datetime:
        """When it was stored."""
        return moment(self.fields["created_ms"])

    @property
    def updated_at(self) -> datetime:
        """When anything of it last changed."""
        return moment(self.fields["updated_ms"])

    @property
    def started_at(self) -> datetime | None:
        """When the flow, or a first run of the signature, began; None before that."""
        return _optional_moment(self.fields.get("started_ms"))

    @property
    def starts_at(self) -> datetime | None:
        """When the flow starts by itself; None if it is not scheduled, or has begun."""
        return _optional_moment(self.fields.get("starts_ms"))

    @property
    def ended_at(self) -> datetime | None:
        """When it last ended; None before that."""
        return _optional_moment(self.fields.get("ended_ms"))

    @property
    def attempts(self) -> int:
        """Attempts that were admitted so far, of all members."""
        return int(self.fields.get("attempts") or 0)

    @property
    def last_run(self) -> LastRun | None:
        """The run that was admitted last."""
        return _last_run(json.loads(self.fields.get("last_run") or "{}"))

    @property
    def error(self) -> FailureRecord | None:
        """The last error of a step, an item or a user's run."""
        return _optional_failure(self.fields.get("error"))

    @property
    def parent(self) -> str:
        """Key of the parent's member that this flow stands for; empty without a parent."""
        return self.fields.get("parent", "")

    @property
    def traceparent(self) -> str:
        """The context that runs of the flow belong under."""
        return self.fields.get("traceparent", "")

    @property
    def history(self) -> tuple[HistoryEntry, ...]:
        """The last changes of status, oldest first."""
        return tuple(
            HistoryEntry(at=moment(each["at_ms"]), status=Status(each["status"]), by=each["by"], why=each["why"])
            for each in json.loads(self.fields.get("history") or "[]")
        )

    @property
    def total(self) -> int:
        """How many steps or items the flow has; 0 for a signature."""
        return int(self.fields.get("total", 0))

    @property
    def step(self) -> int:
        """Of a chain: how many steps have succeeded."""
        return int(self.fields["step"])

    @property
    def next_item(self) -> int:
        """Of a swarm: number of the item that starts next."""
        return int(self.fields["next_item"])

    @property
    def running(self) -> int:
        """Of a swarm: items that have started and not ended."""
        return int(self.fields["running"])

    @property
    def succeeded(self) -> int:
        """Of a swarm: items that succeeded."""
        return int(self.fields["succeeded"])

    @property
    def failed(self) -> int:
        """Of a swarm: items that ended in another way."""
        return int(self.fields["failed"])

    @property
    def is_closed(self) -> bool:
        """Of a swarm: whether it accepts no more items."""
        return self.fields["closed"] == "1"


@frozen
class StoredState:
    """The state of a member. A property raises `ValueError` or `KeyError` when its field is damaged."""

    fields: Mapping[str, Any]

    @classmethod
    def read(cls, text: str) -> "StoredState":
        """Read the stored JSON text; an empty text is the state of a member that was not reached.

        Raises:
            ValueError: It is damaged.
        """
        return cls(json.loads(text) if text else {})

    @property
    def stage(self) -> str:
        """The stored word: ``queued``, ``sent``, ``held`` or a status; empty when the member was not reached."""
        # A member that was suspended before it was reached has the epoch -1.
        return str(self.fields.get("status", "")) if self.fields.get("epoch", 0) >= 0 else ""

    @property
    def status(self) -> Status:
        """The status that a user is shown."""
        if self.is_suspended and not self.stage:
            return Status.SUSPENDED
        word = self.stage or "pending"
        return _STATUSES.get(word) or Status(word)

    @property
    def is_suspended(self) -> bool:
        """Whether this member itself is suspended."""
        return bool(self.fields.get("suspended"))

    @property
    def attempts(self) -> int:
        """Attempts that were admitted, of all dispatches."""
        return int(self.fields.get("attempts") or 0)

    @property
    def last_run(self) -> LastRun | None:
        """The run that owns the member, or owned it last."""
        return _last_run(self.fields)

    @property
    def error(self) -> FailureRecord | None:
        """The error of its last failed attempt."""
        return _optional_failure(self.fields.get("error"))

    @property
    def traceparent(self) -> str:
        """The context of its last run."""
        return str(self.fields.get("traceparent") or "")

    @property
    def decided_at(self) -> datetime | None:
        """When this dispatch was decided; None for a user's run, and for what an older release has stored."""
        return _optional_moment(self.fields.get("decided_ms"))

    @property
    def admitted_at(self) -> datetime | None:
        """When its first attempt was admitted; None before that, and for what an older release has stored."""
        return _optional_moment(self.fields.get("admitted_ms"))

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, of the attempts that ended."""
        return {str(stage): float(ms) / 1000 for stage, ms in dict(self.fields.get("stages") or {}).items()}

    @property
    def changed_at(self) -> datetime | None:
        """When this state last changed; None when the member was not reached."""
        return _optional_moment(self.fields.get("changed_ms"))


def _optional_moment(milliseconds: str | float | None) -> datetime | None:
    return moment(milliseconds) if milliseconds else None


def _optional_failure(text: str | None) -> FailureRecord | None:
    return FailureRecord.model_validate_json(text) if text else None


def _last_run(fields: Mapping[str, Any]) -> LastRun | None:
    if not fields.get("run_id"):
        return None
    return LastRun(
        workflow_run_id=fields["run_id"],
        task_run_id=fields.get("task_run_id") or "",
        worker_id=fields.get("worker_id") or "",
    )
