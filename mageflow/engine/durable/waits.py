"""The conditions of a durable wait: sleeps and user events in or-groups."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime

from mageflow.engine.contracts import condition_pb2 as pb
from mageflow.engine.expressions import holds
from mageflow.engine.matches import event_scope
from mageflow.engine.model import UserEvent
from mageflow.engine.parsing import utc_time
from mageflow.engine.values import JsonObject


@dataclass(slots=True, kw_only=True, eq=False)
class WaitCondition:
    """One member of an or-group: a sleep or an event.

    Attributes:
        since: stored events from this time on count too.
        data: set when the condition is satisfied.
    """

    group: str
    data_key: str
    expression: str
    sleep_for: str | None = None
    event_key: str | None = None
    event_scope: str | None = None
    since: datetime | None = None
    data: JsonObject | None = None
    timer: asyncio.TimerHandle | None = None

    def accepts(self, event: UserEvent) -> bool:
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
    return utc_time(condition.consider_events_since, "consider_events_since")


def fingerprint_of(conditions: list[WaitCondition]) -> bytes:
    """Return what must be the same in a replay. The ids of or-groups are random and left out."""
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
    """Return the result of a wait: the data of satisfied conditions, by readable key."""
    by_key: dict[str, list[JsonObject]] = {}
    for each in conditions:
        if each.data is not None:
            by_key.setdefault(each.data_key, []).append(each.data)
    return json.dumps({"CREATE": by_key}).encode()
