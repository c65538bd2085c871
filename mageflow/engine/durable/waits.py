"""What a durable wait waits for: sleeps and user events in or-groups."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from mageflow.engine.documents import moment_of
from mageflow.engine.expressions import holds
from mageflow.engine.matches import event_scope
from mageflow.engine.model import JsonObject

if TYPE_CHECKING:
    from mageflow.engine.contracts import condition_pb2 as pb
    from mageflow.engine.events import EventRecord


@dataclass(slots=True, kw_only=True, eq=False)
class WaitCondition:
    """One member of an or-group: a sleep or an event."""

    group: str
    data_key: str
    expression: str
    sleep_for: str | None = None
    event_key: str | None = None
    event_scope: str | None = None
    since: datetime | None = None
    data: JsonObject | None = None
    timer: asyncio.TimerHandle | None = None

    def accepts(self, event: EventRecord) -> bool:
        """Whether an event satisfies this condition."""
        return (
            self.event_key == event.key
            and (self.event_scope is None or self.event_scope == event.scope)
            and holds(self.expression, {"input": event.payload})
        )


def conditions_of(listened: pb.DurableEventListenerConditions) -> list[WaitCondition]:
    """Return the conditions of a wait request."""
    sleeps = [
        WaitCondition(
            group=each.base.or_group_id,
            data_key=each.base.readable_data_key,
            expression=each.base.expression,
            sleep_for=each.sleep_for,
        )
        for each in listened.sleep_conditions
    ]
    events = [
        WaitCondition(
            group=each.base.or_group_id,
            data_key=each.base.readable_data_key,
            expression=each.base.expression,
            event_key=each.user_event_key,
            event_scope=event_scope(each),
            since=_since(each),
        )
        for each in listened.user_event_conditions
    ]
    return sleeps + events


def _since(condition: pb.UserEventMatchCondition) -> datetime | None:
    if not condition.HasField("consider_events_since"):
        return None
    return moment_of(condition.consider_events_since, "consider_events_since")


def fingerprint_of(conditions: list[WaitCondition]) -> bytes:
    """Return what must be the same on replay: kinds, keys, durations, expressions; or-group ids are random."""
    parts = sorted(
        json.dumps([each.data_key, each.sleep_for, each.event_key, each.event_scope, each.expression])
        for each in conditions
    )
    return "\n".join(parts).encode()


def is_satisfied(conditions: list[WaitCondition]) -> bool:
    """Whether every or-group has a satisfied member."""
    groups: dict[str, bool] = {}
    for each in conditions:
        groups[each.group] = groups.get(each.group, False) or each.data is not None
    return all(groups.values())


def payload_of(conditions: list[WaitCondition]) -> bytes:
    """Return the result of a wait: data of the satisfied conditions by readable key."""
    by_key: dict[str, list[JsonObject]] = {}
    for each in conditions:
        if each.data is not None:
            by_key.setdefault(each.data_key, []).append(each.data)
    return json.dumps({"CREATE": by_key}).encode()
