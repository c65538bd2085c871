"""Moves PENDING tasks on: evaluates their matches against ended parents, elapsed sleeps and events."""

from __future__ import annotations

from collections.abc import Callable

from mageflow.engine.clock import Clock
from mageflow.engine.durations import parse_duration
from mageflow.engine.expressions import holds
from mageflow.engine.lifecycle import Lifecycle
from mageflow.engine.matches import Condition, Match, MatchAction, ParentState, first_match, second_match
from mageflow.engine.model import Run, Task, TaskStatus, UserEvent


class Graph:
    """The open matches of all runs.

    Args:
        clock: for sleep conditions.
        lifecycle: queues, skips and cancels the tasks.
    """

    def __init__(self, clock: Clock, lifecycle: Lifecycle) -> None:
        self._clock = clock
        self._lifecycle = lifecycle
        self._open_matches: dict[Task, Match] = {}
        self._by_event_key: dict[str, set[Match]] = {}

    def start(self, run: Run) -> None:
        """Begin all tasks of a new run."""
        for task in list(run.tasks.values()):
            # Starting one task can end others: a concurrency strategy may cancel the whole run.
            if not task.definition.is_on_failure and task.status is TaskStatus.PENDING:
                self.start_task(task)

    def start_task(self, task: Task) -> None:
        """Give a PENDING task its first match, or queue it when it has no conditions."""
        match = first_match(task)
        if not match.conditions:
            self._lifecycle.enqueue(task)
            return
        self._open(match)
        for parent in {c.parent for c in match.conditions if c.parent}:
            other = task.run.tasks[parent]
            if other.status.is_terminal:
                self._parent_ended(match, other)
        self._resolve(match)

    def task_finished(self, task: Task) -> None:
        """Evaluate the matches of the run's other tasks; start or skip the on_failure task."""
        for other in task.run.tasks.values():
            match = self._open_matches.get(other)
            if match is not None and other.status is TaskStatus.PENDING and self._parent_ended(match, task):
                self._resolve(match)
        self._consider_on_failure(task.run)

    def event_pushed(self, event: UserEvent) -> None:
        """Evaluate the matches that wait for this event key."""
        for match in list(self._by_event_key.get(event.key, ())):
            changed = False
            for condition in match.conditions:
                if condition.satisfied or condition.event_key != event.key:
                    continue
                if condition.event_scope is not None and condition.event_scope != event.scope:
                    continue
                if holds(condition.expression, {"input": event.payload}):
                    condition.satisfied, condition.data, changed = True, event.payload, True
            if changed:
                self._resolve(match)

    def release(self, task: Task) -> None:
        """Close the task's match, if one is open."""
        match = self._open_matches.get(task)
        if match is not None:
            self._close(match)

    def _open(self, match: Match) -> None:
        self._open_matches[match.task] = match
        for condition in match.conditions:
            if condition.event_key is not None:
                self._by_event_key.setdefault(condition.event_key, set()).add(match)
            if condition.sleep_for is not None:
                seconds = parse_duration(condition.sleep_for)
                condition.timer = self._clock.later_accelerated(seconds, self._sleep_over, match, condition)

    def _close(self, match: Match) -> None:
        if self._open_matches.get(match.task) is match:
            del self._open_matches[match.task]
        for condition in match.conditions:
            if condition.timer is not None:
                condition.timer.cancel()
            if condition.event_key is not None and condition.event_key in self._by_event_key:
                self._by_event_key[condition.event_key].discard(match)
                if not self._by_event_key[condition.event_key]:
                    del self._by_event_key[condition.event_key]

    def _sleep_over(self, match: Match, condition: Condition) -> None:
        condition.satisfied, condition.data = True, {"sleep_duration": condition.sleep_for}
        self._resolve(match)

    def _parent_ended(self, match: Match, parent: Task) -> bool:
        """Mark the conditions that this parent satisfies; return whether any condition is about this parent."""
        concerned = False
        for condition in match.conditions:
            if condition.parent == parent.name:
                concerned = True
                condition.satisfied = condition.satisfied or _satisfied_by(condition, parent)
        return concerned

    def _resolve(self, match: Match) -> None:
        """Act on the match when an action fires."""
        task = match.task
        if task.status is not TaskStatus.PENDING:
            self._close(match)
            return
        action = match.fired()
        if action is None and match.waits_for_ended_parents():
            # Several parents may have ended in this step, and the match may have seen only some of them.
            for parent in {condition.parent for condition in match.conditions if condition.parent}:
                self._parent_ended(match, task.run.tasks[parent])
            action = match.fired()
            if action is None:
                self._close(match)
                self._cancel(task, "no condition can be met any more: all parents have ended")
        if action is None:
            return
        self._close(match)
        task.condition_data.update(match.data())
        reactions: dict[MatchAction, Callable[[Task], None]] = {
            MatchAction.SKIP: self._skip,
            MatchAction.CANCEL: self._cancel,
            MatchAction.QUEUE: self._lifecycle.enqueue,
            MatchAction.WAIT: self._wait,
        }
        reactions[action](task)

    def _skip(self, task: Task) -> None:
        self._lifecycle.create(task)
        self._lifecycle.finish(
            task,
            TaskStatus.COMPLETED,
            output_text='{"skipped": true}',
            output={"skipped": True},
            event="SKIPPED",
            skipped=True,
        )

    def _cancel(self, task: Task, message: str = "a parent failed or was cancelled, or cancel_if held") -> None:
        self._lifecycle.create(task)
        self._lifecycle.finish(task, TaskStatus.CANCELLED, message=message)

    def _wait(self, task: Task) -> None:
        self._open(second_match(task))

    def _consider_on_failure(self, run: Run) -> None:
        handler = next((task for task in run.tasks.values() if task.definition.is_on_failure), None)
        if handler is None or handler.status is not TaskStatus.PENDING:
            return
        others = [task for task in run.tasks.values() if task is not handler]
        if any(task.status is TaskStatus.FAILED for task in others):
            self._lifecycle.enqueue(handler)
        elif all(task.status.is_terminal for task in others):
            self._skip(handler)


def _satisfied_by(condition: Condition, parent: Task) -> bool:
    if condition.parent_state is ParentState.SKIPPED:
        return parent.skipped or (isinstance(parent.output, dict) and parent.output.get("skipped") is True)
    if condition.parent_state is ParentState.NOT_COMPLETED:
        return parent.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)
    if parent.status is not TaskStatus.COMPLETED:
        return False
    return holds(condition.expression, {"output": parent.output or {}, "input": parent.run.input})
