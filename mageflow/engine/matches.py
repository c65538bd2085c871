"""When a task of a DAG may start, must be skipped or must be cancelled.

A PENDING task has a match: a list of conditions, each for one action and in one or-group. One satisfied member
satisfies its group, and an action fires when all its groups are satisfied. Of several actions that fire, the first of
SKIP, CANCEL, QUEUE, WAIT decides.

======================================  ==========  ===========================  =====================================
condition                               action      group                        satisfied when
======================================  ==========  ===========================  =====================================
each parent                             QUEUE       its own                      parent COMPLETED
each parent (no skip_if on a parent)    SKIP        its own, so all are needed   parent was skipped
any parent                              CANCEL      one for all                  parent FAILED or CANCELLED
ParentCondition in wait_for             QUEUE       as declared                  parent COMPLETED and CEL true
ParentCondition in skip_if / cancel_if  its own     as declared / the CANCEL one parent COMPLETED and CEL true
======================================  ==========  ===========================  =====================================

With sleep or event conditions, the QUEUE of the parents becomes WAIT. When WAIT fires, a second match of only those
conditions begins. Its sleeps start then, and events before that moment do not count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mageflow.engine.contracts import condition_pb2 as pb
from mageflow.engine.definitions import TaskDefinition
from mageflow.engine.model import Task
from mageflow.engine.values import JsonObject

_CANCEL_GROUP = "any parent failed or was cancelled"


class MatchAction(Enum):
    """What happens to the task when the conditions of the action are satisfied. The first that fires decides."""

    SKIP = "SKIP"
    CANCEL = "CANCEL"
    QUEUE = "QUEUE"
    WAIT = "WAIT"


class ParentState(Enum):
    """What a parent condition waits for."""

    COMPLETED = "COMPLETED"
    SKIPPED = "SKIPPED"
    NOT_COMPLETED = "FAILED or CANCELLED"


@dataclass(slots=True, kw_only=True, eq=False)
class Condition:
    """One member of an or-group. Exactly one of ``parent``, ``sleep_for`` and ``event_key`` is set."""

    action: MatchAction
    group: str
    parent: str | None = None
    parent_state: ParentState | None = None
    sleep_for: str | None = None
    event_key: str | None = None
    event_scope: str | None = None
    expression: str = ""
    data_key: str = ""
    satisfied: bool = False
    data: JsonObject | None = None
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Match:
    """The open conditions of one PENDING task."""

    task: Task
    conditions: list[Condition] = field(default_factory=list["Condition"])

    def fired(self) -> MatchAction | None:
        """Return the first action whose groups are all satisfied, or None."""
        return next((action for action in MatchAction if self._fires(action)), None)

    def waits_for_ended_parents(self) -> bool:
        """Whether every condition is about a parent, and all those parents have ended."""
        tasks = self.task.run.tasks
        return all(c.parent is not None and tasks[c.parent].status.is_terminal for c in self.conditions)

    def data(self) -> JsonObject:
        """Return the data of satisfied sleep and event conditions, by readable key."""
        return {c.data_key: c.data for c in self.conditions if c.satisfied and c.data is not None}

    def _fires(self, action: MatchAction) -> bool:
        groups: dict[str, bool] = {}
        for condition in self.conditions:
            if condition.action is action:
                groups[condition.group] = groups.get(condition.group, False) or condition.satisfied
        return bool(groups) and all(groups.values())


_ACTIONS = {
    pb.CREATE: MatchAction.QUEUE,
    pb.QUEUE: MatchAction.QUEUE,
    pb.SKIP: MatchAction.SKIP,
    pb.CANCEL: MatchAction.CANCEL,
}


def first_match(task: Task) -> Match:
    """Return the match with which a task begins."""
    definition = task.definition
    if not definition.parents:
        return second_match(task)
    conditions = _parent_conditions(definition)
    if _has_waits(definition):
        for condition in conditions:
            if condition.action is MatchAction.QUEUE:
                condition.action = MatchAction.WAIT
    return Match(task=task, conditions=conditions)


def second_match(task: Task) -> Match:
    """Return the match of the task's sleep and event conditions alone."""
    declared = task.definition.conditions
    if declared is None:
        return Match(task=task)
    sleeps = [Condition(sleep_for=each.sleep_for, **_shared(each.base)) for each in declared.sleep_conditions]
    events = [
        Condition(event_key=each.user_event_key, event_scope=event_scope(each), **_shared(each.base))
        for each in declared.user_event_conditions
    ]
    return Match(task=task, conditions=sleeps + events)


def event_scope(condition: pb.UserEventMatchCondition) -> str | None:
    """Return the scope that an event must have, or None for any scope."""
    return condition.event_scope if condition.HasField("event_scope") and condition.event_scope else None


def _has_waits(definition: TaskDefinition) -> bool:
    declared = definition.conditions
    return declared is not None and bool(declared.sleep_conditions or declared.user_event_conditions)


def _parent_conditions(definition: TaskDefinition) -> list[Condition]:
    declared = definition.conditions
    overrides = [] if declared is None else list(declared.parent_override_conditions)
    replaced = {o.parent_readable_id for o in overrides if _ACTIONS[o.base.action] is MatchAction.QUEUE}
    has_skip_if = any(_ACTIONS[o.base.action] is MatchAction.SKIP for o in overrides)
    conditions: list[Condition] = []
    for parent in definition.parents:
        if parent not in replaced:
            conditions.append(_on_parent(MatchAction.QUEUE, f"{parent} completed", parent, ParentState.COMPLETED))
        if not has_skip_if:
            conditions.append(_on_parent(MatchAction.SKIP, f"{parent} skipped", parent, ParentState.SKIPPED))
        conditions.append(_on_parent(MatchAction.CANCEL, _CANCEL_GROUP, parent, ParentState.NOT_COMPLETED))
    for override in overrides:
        shared = _shared(override.base)
        if shared["action"] is MatchAction.CANCEL:
            shared["group"] = _CANCEL_GROUP
        conditions.append(Condition(parent=override.parent_readable_id, parent_state=ParentState.COMPLETED, **shared))
    return conditions


def _on_parent(action: MatchAction, group: str, parent: str, state: ParentState) -> Condition:
    return Condition(action=action, group=group, parent=parent, parent_state=state)


def _shared(base: pb.BaseMatchCondition) -> dict[str, Any]:
    return {
        "action": _ACTIONS[base.action],
        "group": base.or_group_id,
        "expression": base.expression,
        "data_key": base.readable_data_key,
    }
