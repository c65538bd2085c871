"""The attributes of a ``process`` span. What all attempts of a task have is put together once per task."""

from typing import NamedTuple

from mageflow.interceptors import Attempt, TaskInfo
from mageflow.telemetry.names import traces
from mageflow.telemetry.propagation import source_of
from mageflow.telemetry.spans import Attributes, Spans

__all__ = ["ProcessSpans", "attempt_ids"]


class _OfTask(NamedTuple):
    task: TaskInfo
    server: Attributes
    name: str
    execute_name: str
    shared: Attributes
    """For a span of another instrumentation too."""
    own: Attributes
    """For mageflow's own span."""


class ProcessSpans:
    """Names and attributes of the ``process`` spans of one client."""

    __slots__ = ("_by_name", "_spans")

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._by_name: dict[str, _OfTask] = {}

    def name(self, task: TaskInfo) -> str:
        """The name of the span."""
        return self._of(task).name

    def execute_name(self, task: TaskInfo) -> str:
        """The name of the span of the task's function."""
        return self._of(task).execute_name

    def attributes(self, attempt: Attempt, *, is_own: bool) -> Attributes:
        """The attributes at the start of the attempt: a new dictionary.

        The ones that an end without a retry or an extension has are there from the start, because each later
        attribute is a call of its own.

        Args:
            attempt: The attempt.
            is_own: Whether they are for mageflow's own span.
        """
        task = attempt.task
        prepared = self._of(task)
        run_id, worker_id = attempt.workflow_run_id, attempt.worker_id
        attributes: Attributes = {
            **(prepared.own if is_own else prepared.shared),
            traces.MESSAGING_MESSAGE_ID: run_id,
            traces.MESSAGING_CLIENT_ID: worker_id,
            traces.HATCHET_WORKFLOW_RUN_ID: run_id,
            traces.HATCHET_STEP_RUN_ID: attempt.task_run_id,
            traces.HATCHET_WORKER_ID: worker_id,
            traces.TASK_ATTEMPT: attempt.attempt_number,
            traces.TASK_MAX_ATTEMPTS: attempt.max_attempts,
        }
        if attempt.flow_id:
            attributes[traces.MESSAGING_CONVERSATION_ID] = attempt.flow_id
        if task.is_batch:
            attributes[traces.MESSAGING_BATCH_COUNT] = attempt.batch_size
        if source := source_of(attempt.metadata):
            attributes[traces.ENQUEUE_SOURCE] = source
        if attempt.signature_id:
            attributes[traces.SIGNATURE_ID] = attempt.signature_id
        return attributes

    def _of(self, task: TaskInfo) -> _OfTask:
        found, server = self._by_name.get(task.name), self._spans.server
        # A task may be declared again, and the server is known when its client is made.
        if found is None or found.task is not task or found.server is not server:
            found = self._by_name[task.name] = self._prepare(task, server)
        return found

    def _prepare(self, task: TaskInfo, server: Attributes) -> _OfTask:
        shared: Attributes = {
            traces.MESSAGING_SYSTEM: traces.HATCHET_SYSTEM,
            traces.MESSAGING_DESTINATION_NAME: task.name,
            traces.MESSAGING_OPERATION_NAME: "process",
            traces.MESSAGING_OPERATION_TYPE: "process",
            traces.TASK_TIMEOUT_S: task.execution_timeout_seconds,
            traces.TASK_WILL_RETRY: False,
            traces.TASK_TIMEOUT_EXTENDED_S: 0.0,
        }
        if task.code_function_name:
            shared[traces.CODE_FUNCTION_NAME] = task.code_function_name
        return _OfTask(
            task,
            server,
            traces.SPAN_PROCESS(task.name),
            traces.SPAN_EXECUTE(task.name),
            shared,
            self._spans.with_common(shared),
        )


def attempt_ids(attempt: Attempt) -> Attributes:
    """The attributes of every other span inside an attempt."""
    ids: Attributes = {
        traces.MESSAGING_DESTINATION_NAME: attempt.task.name,
        traces.MESSAGING_MESSAGE_ID: attempt.workflow_run_id,
        traces.MESSAGING_CLIENT_ID: attempt.worker_id,
        traces.HATCHET_WORKFLOW_RUN_ID: attempt.workflow_run_id,
        traces.HATCHET_STEP_RUN_ID: attempt.task_run_id,
        traces.HATCHET_WORKER_ID: attempt.worker_id,
    }
    if attempt.flow_id:
        ids[traces.MESSAGING_CONVERSATION_ID] = attempt.flow_id
    return ids
