"""Reads the registration of a workflow, and refuses what Hatchet refuses.

A definition that only the engine accepted would run on the developer's machine and nowhere else. The error texts say
what to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.definitions import BatchConfig, TaskDefinition
from mageflow.engine.durations import parse_duration
from mageflow.engine.errors import InvalidRequestError
from mageflow.engine.expressions import ExpressionError, check
from mageflow.engine.values import new_id

_DEFAULT_TIMEOUT = "60s"
_DEFAULT_SCHEDULE_TIMEOUT = "5m"
_DEFAULT_BATCH_INTERVAL_MS = 1000
_DEFAULT_BATCH_GROUP_KEY = "'default'"
_DEFAULT_BATCH_MAX_RUNS = 100
_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_LARGEST_BACKOFF_FACTOR = 1000


def check_registration(request: pb.CreateWorkflowVersionRequest) -> None:
    """Check names, numbers and expressions by Hatchet's rules.

    Raises:
        InvalidRequestError: a name is empty or has characters other than ASCII letters, digits, ``.``, ``_`` and
            ``-``; an expression for concurrency or idempotency is empty or not CEL; a number is out of range.
    """
    what = f"workflow {request.name!r}"
    _check_name(request.name, what)
    _check_concurrency([*request.concurrency_arr, *([request.concurrency] * request.HasField("concurrency"))], what)
    if request.HasField("idempotency"):
        _check_expression(request.idempotency.expression, f"idempotency key of {what}")
        if request.idempotency.ttl_ms < 1:
            raise InvalidRequestError(f"the idempotency key of {what} needs a ttl_ms of at least 1")
    for options in [*request.tasks, *([request.on_failure_task] * request.HasField("on_failure_task"))]:
        _check_task(options, f"task {options.readable_id!r} of {what}")


def _check_task(options: pb.CreateTaskOpts, what: str) -> None:
    _check_name(options.readable_id, what)
    _check_concurrency(options.concurrency, what)
    if options.retries < 0:
        raise InvalidRequestError(f"{what}: retries must be 0 or more, not {options.retries}")
    if options.HasField("backoff_factor") and not 1 <= options.backoff_factor <= _LARGEST_BACKOFF_FACTOR:
        raise InvalidRequestError(
            f"{what}: backoff_factor must be from 1 to {_LARGEST_BACKOFF_FACTOR}, not {options.backoff_factor:g}"
        )
    if options.HasField("backoff_max_seconds") and options.backoff_max_seconds < 1:
        raise InvalidRequestError(f"{what}: backoff_max_seconds must be 1 or more, not {options.backoff_max_seconds}")
    if options.HasField("batch") and options.batch.batch_max_size < 1:
        raise InvalidRequestError(f"{what}: batch_max_size must be 1 or more, not {options.batch.batch_max_size}")
    if any(not limit.key for limit in options.rate_limits):
        raise InvalidRequestError(f"{what}: every rate limit needs a key")


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{what} needs a name of letters a-z and A-Z, digits, '.', '_' and '-': Hatchet refuses others"
        )


def _check_concurrency(entries: Iterable[pb.Concurrency], what: str) -> None:
    for each in entries:
        _check_expression(each.expression, f"concurrency of {what}")


def _check_expression(expression: str, what: str) -> None:
    if not expression:
        raise InvalidRequestError(f"the {what} needs a CEL expression")
    try:
        check(expression)
    except ExpressionError as error:
        raise InvalidRequestError(f"the {what} has an invalid CEL expression {expression!r}: {error}") from error


def task_definitions(request: pb.CreateWorkflowVersionRequest) -> dict[str, TaskDefinition]:
    """Return the tasks of a workflow by name, the on_failure task last.

    Raises:
        InvalidRequestError: there is no task, a name is declared twice, a parent is unknown, the parents form a
            circle, or a duration is malformed.
    """
    if not request.tasks:
        raise InvalidRequestError(f"workflow {request.name!r} has no tasks")
    tasks: dict[str, TaskDefinition] = {}
    for options in request.tasks:
        if options.readable_id in tasks:
            raise InvalidRequestError(f"workflow {request.name!r} has two tasks named {options.readable_id!r}")
        tasks[options.readable_id] = _task_definition(options, is_on_failure=False)
    _check_parents(request.name, tasks)
    if request.HasField("on_failure_task"):
        handler = _task_definition(request.on_failure_task, is_on_failure=True)
        if handler.name in tasks:
            raise InvalidRequestError(f"workflow {request.name!r} has two tasks named {handler.name!r}")
        tasks[handler.name] = handler
    return tasks


def _check_parents(workflow: str, tasks: dict[str, TaskDefinition]) -> None:
    for task in tasks.values():
        for parent in task.parents:
            if parent not in tasks:
                raise InvalidRequestError(f"task {task.name!r} of {workflow!r} names unknown parent {parent!r}")
    ready: set[str] = set()
    while len(ready) < len(tasks):
        more = {name for name, task in tasks.items() if name not in ready and ready.issuperset(task.parents)}
        if not more:
            raise InvalidRequestError(f"the tasks of workflow {workflow!r} wait for each other in a circle")
        ready |= more


def _task_definition(options: pb.CreateTaskOpts, *, is_on_failure: bool) -> TaskDefinition:
    timeout_text = options.timeout or _DEFAULT_TIMEOUT
    for sleep in options.conditions.sleep_conditions:
        parse_duration(sleep.sleep_for)
    return TaskDefinition(
        id=new_id(),
        name=options.readable_id,
        action=options.action.lower(),
        timeout=parse_duration(timeout_text),
        timeout_text=timeout_text,
        schedule_timeout=parse_duration(
            options.schedule_timeout if options.HasField("schedule_timeout") else _DEFAULT_SCHEDULE_TIMEOUT
        ),
        parents=() if is_on_failure else tuple(options.parents),
        retries=options.retries,
        backoff_factor=options.backoff_factor if options.HasField("backoff_factor") else None,
        backoff_max=options.backoff_max_seconds if options.HasField("backoff_max_seconds") else None,
        slots=dict(options.slot_requests) or {"durable" if options.is_durable else "default": 1},
        labels=options.worker_labels,
        rate_limits=list(options.rate_limits),
        concurrency=list(options.concurrency),
        conditions=options.conditions if options.HasField("conditions") and not is_on_failure else None,
        is_durable=options.is_durable,
        is_on_failure=is_on_failure,
        batch=batch_config(options.batch) if options.HasField("batch") else None,
    )


def batch_config(config: pb.TaskBatchConfig) -> BatchConfig:
    """Return how the items of a batch task are collected, with Hatchet's defaults."""
    interval_ms = config.batch_max_interval_ms if config.HasField("batch_max_interval_ms") else 0
    return BatchConfig(
        max_size=config.batch_max_size,
        interval=(interval_ms or _DEFAULT_BATCH_INTERVAL_MS) / 1000,
        group_key=(config.batch_group_key if config.HasField("batch_group_key") else "") or _DEFAULT_BATCH_GROUP_KEY,
        max_runs=(config.batch_group_max_runs if config.HasField("batch_group_max_runs") else 0)
        or _DEFAULT_BATCH_MAX_RUNS,
        broadcast_output=config.broadcast_output,
    )
