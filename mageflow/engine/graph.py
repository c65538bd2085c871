"""Runs matches: starts them, feeds them finished parents, elapsed sleeps and events, and acts on what fires."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mageflow.engine.durations import parse_duration
from mageflow.engine.expressions import holds
from mageflow.engine.matches import Condition, Match, MatchAction, ParentState, first_match, second_match
from mageflow.engine.model import Run, Task, TaskStatus

if TYPE_CHECKING:
    from mageflow.engine.core import Engine
    from mageflow.engine.events import EventRecord

SKIPPED_OUTPUT = {"skipped": True}


class Graph:
    """The DAG side of runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Open matches by the event key they wait for.
        self._waiting: dict[str, set[Match]] = {}

    def start(self, run: Run) -> None:
        """Begin all tasks of a new run."""
        for task in list(run.tasks.values()):
            # Starting one task can end others: an admission strategy may cancel the whole run.
            if not task.step.is_on_failure and task.status is TaskStatus.PENDING:
                self.start_task(task)

    def start_task(self, task: Task) -> None:
        """Give a PENDING task its first match, or queue it when nothing holds it back."""
        match = first_match(task)
        if not match.conditions:
            self._engine.lifecycle.enqueue(task)
            return
        self._open(match)
        for parent in {c.parent for c in match.conditions if c.parent}:
            other = task.run.tasks[parent]
            if other.status.is_terminal:
                self._parent_finished(match, other)
        self._resolve(match)

    def task_finished(self, task: Task) -> None:
        """Tell the other tasks of the run; start or skip the on_failure task."""
        for other in task.run.tasks.values():
            match = other.match
            if match is not None and other.status is TaskStatus.PENDING and self._parent_finished(match, task):
                self._resolve(match)
        self._consider_on_failure(task.run)

    def event_happened(self, event: EventRecord) -> None:
        """Feed an event to the matches that wait for its key."""
        for match in list(self._waiting.get(event.key, ())):
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
        """Drop the task's open match, if it has one."""
        if task.match is not None:
            self._close(task.match)

    def _open(self, match: Match) -> None:
        match.task.match = match
        for condition in match.conditions:
            if condition.event_key is not None:
                self._waiting.setdefault(condition.event_key, set()).add(match)
            if condition.sleep_for is not None:
                seconds = parse_duration(condition.sleep_for)
                condition.timer = self._engine.clock.later_accelerated(seconds, self._sleep_over, match, condition)

    def _close(self, match: Match) -> None:
        if match.task.match is match:
            match.task.match = None
        for condition in match.conditions:
            if condition.timer is not None:
                condition.timer.cancel()
            if condition.event_key is not None and condition.event_key in self._waiting:
                self._waiting[condition.event_key].discard(match)
                if not self._waiting[condition.event_key]:
                    del self._waiting[condition.event_key]

    def _sleep_over(self, match: Match, condition: Condition) -> None:
        condition.satisfied, condition.data = True, {"sleep_duration": condition.sleep_for}
        self._resolve(match)

    def _parent_finished(self, match: Match, parent: Task) -> bool:
        """Mark the conditions this parent satisfies; return whether the parent concerns the match at all."""
        name = parent.step.readable_id
        concerned = False
        for condition in match.conditions:
            if condition.parent == name:
                concerned = True
                condition.satisfied = condition.satisfied or _satisfied_by(condition, parent)
        return concerned

    def _resolve(self, match: Match) -> None:
        task = match.task
        if task.status is not TaskStatus.PENDING:
            self._close(match)
            return
        action = match.fired()
        if action is None and match.is_hopeless():
            # Some parents have ended in this very step, and their end has not been told to the match yet.
            for parent in {condition.parent for condition in match.conditions if condition.parent}:
                self._parent_finished(match, task.run.tasks[parent])
            action = match.fired()
            if action is None:
                self._close(match)
                self._cancel(task, "no condition can be met any more: all parents have ended")
        if action is None:
            return
        self._close(match)
        task.match_data.update(match.data())
        match_actions: dict[MatchAction, Callable[[Task], None]] = {
            MatchAction.SKIP: self._skip,
            MatchAction.CANCEL: self._cancel,
            MatchAction.QUEUE: self._engine.lifecycle.enqueue,
            MatchAction.WAIT: self._wait,
        }
        match_actions[action](task)

    def _skip(self, task: Task) -> None:
        task.created = True
        self._engine.lifecycle.finish(
            task,
            TaskStatus.COMPLETED,
            output_text='{"skipped": true}',
            output=dict(SKIPPED_OUTPUT),
            event="SKIPPED",
            skipped=True,
        )

    def _cancel(self, task: Task, message: str = "a parent failed or was cancelled, or cancel_if held") -> None:
        task.created = True
        self._engine.lifecycle.finish(task, TaskStatus.CANCELLED, message=message)

    def _wait(self, task: Task) -> None:
        match = second_match(task)
        self._open(match)

    def _consider_on_failure(self, run: Run) -> None:
        handler = next((task for task in run.tasks.values() if task.step.is_on_failure), None)
        if handler is None or handler.status is not TaskStatus.PENDING:
            return
        others = [task for task in run.tasks.values() if task is not handler]
        if any(task.status is TaskStatus.FAILED for task in others):
            self._engine.lifecycle.enqueue(handler)
        elif all(task.status.is_terminal for task in others):
            self._engine.lifecycle.finish(
                handler, TaskStatus.COMPLETED, output_text="{}", output={}, event="SKIPPED", skipped=True
            )


def _satisfied_by(condition: Condition, parent: Task) -> bool:
    if condition.parent_state is ParentState.SKIPPED:
        return parent.skipped or (isinstance(parent.output, dict) and parent.output.get("skipped") is True)
    if condition.parent_state is ParentState.NOT_COMPLETED:
        return parent.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)
    if parent.status is not TaskStatus.COMPLETED:
        return False
    return holds(condition.expression, {"output": parent.output or {}, "input": parent.run.input})
