"""A registration as ``workflowConfig``: the JSON that Hatchet keeps of it, with Hatchet's names and left-out fields."""

from __future__ import annotations

import base64
from functools import lru_cache

from google.protobuf.message import Message

from mageflow.engine.contracts import condition_pb2, trigger_pb2
from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.definitions import WorkflowVersion
from mageflow.engine.parsing import parse_object
from mageflow.engine.registration import batch_config
from mageflow.engine.values import Json, JsonObject

_CONFIGS_KEPT = 256
# Hatchet leaves these out.
_DEFAULT_SLOTS = {"default": 1}
_LONGEST_BACKOFF_SECONDS = 86_400


def workflow_config(version: WorkflowVersion) -> JsonObject:
    """Return the definition of a version. The caller must not change it."""
    return _config(version.fingerprint)


@lru_cache(maxsize=_CONFIGS_KEPT)
def _config(registration: bytes) -> JsonObject:
    request = pb.CreateWorkflowVersionRequest.FromString(registration)
    cron_input = _optional(request, "cron_input")
    tasks = [_task(each) for each in request.tasks]
    concurrency = [*request.concurrency_arr, *([request.concurrency] * request.HasField("concurrency"))]
    limits = [_concurrency(each) for each in concurrency]
    if limits and len(tasks) == 1 and not request.HasField("on_failure_task"):
        # The limits of the workflow are limits of its only task.
        tasks[0]["concurrency"] = [*limits, *tasks[0].get("concurrency", [])]
        limits = []
    return {
        "Name": request.name,
        "EventTriggers": list(request.event_triggers) or None,
        "CronTriggers": list(request.cron_triggers) or None,
        "CronInput": None if cron_input is None else _base64(cron_input.encode()),
        "Tasks": tasks,
        "Sticky": pb.StickyStrategy.Name(request.sticky) if request.HasField("sticky") else None,
        "DefaultPriority": _optional(request, "default_priority"),
        "description": request.description,
        **_unless_empty(
            onFailureJob=_task(request.on_failure_task) if request.HasField("on_failure_task") else None,
            concurrency=limits,
            defaultFilters=[_filter(each) for each in request.default_filters],
            inputJsonSchema=_base64(request.input_json_schema),
            idempotency=_idempotency(request.idempotency) if request.HasField("idempotency") else None,
        ),
    }


def _task(options: pb.CreateTaskOpts) -> JsonObject:
    factor = _optional(options, "backoff_factor")
    longest = _optional(options, "backoff_max_seconds") or _LONGEST_BACKOFF_SECONDS
    slots = dict(options.slot_requests)
    labels = {key: _label(key, wish) for key, wish in options.worker_labels.items()}
    return {
        "ReadableId": options.readable_id,
        "Action": options.action.lower(),
        "Timeout": options.timeout or None,
        "ScheduleTimeout": _optional(options, "schedule_timeout"),
        "Parents": list(options.parents),
        "Retries": options.retries,
        "RateLimits": [_rate_limit(each) for each in options.rate_limits],
        "DesiredWorkerLabels": labels or None,
        "RetryBackoffFactor": factor,
        "RetryBackoffMaxSeconds": None if factor is None else longest,
        "TriggerConditions": _conditions(options.conditions),
        **_unless_empty(
            isDurable=options.is_durable,
            slotRequests={} if slots == _DEFAULT_SLOTS else slots,
            concurrency=[_concurrency(each) for each in options.concurrency],
            batchConfig=_batch(options.batch) if options.HasField("batch") else None,
        ),
    }


def _conditions(conditions: condition_pb2.TaskConditions) -> list[JsonObject]:
    rows: list[JsonObject] = []
    groups: dict[str, int] = {}

    def add(kind: str, base: condition_pb2.BaseMatchCondition, **fields: Json) -> None:
        # An empty id is a group of its own.
        index = groups.setdefault(base.or_group_id or f"{len(groups)}", len(groups))
        rows.append(
            {
                "MatchConditionKind": kind,
                "ReadableDataKey": base.readable_data_key,
                "Action": condition_pb2.Action.Name(base.action),
                "OrGroupIdIndex": index,
                "Expression": "",
                "EventKey": None,
                "SleepDuration": None,
                "ParentReadableId": None,
                **fields,
            }
        )

    for event in conditions.user_event_conditions:
        add("USER_EVENT", event.base, EventKey=event.user_event_key, Expression=event.base.expression)
    for sleep in conditions.sleep_conditions:
        add("SLEEP", sleep.base, SleepDuration=sleep.sleep_for)
    for parent in conditions.parent_override_conditions:
        name = parent.parent_readable_id
        add(
            "PARENT_OVERRIDE",
            parent.base,
            ParentReadableId=name,
            ReadableDataKey=name,
            Expression=parent.base.expression,
        )
    return rows


def _concurrency(entry: pb.Concurrency) -> JsonObject:
    strategy = _optional(entry, "limit_strategy")
    return {
        "Expression": entry.expression,
        "MaxRuns": _optional(entry, "max_runs"),
        "LimitStrategy": None if strategy is None else pb.ConcurrencyLimitStrategy.Name(strategy),
    }


def _rate_limit(limit: pb.CreateTaskRateLimit) -> JsonObject:
    duration = _optional(limit, "duration")
    return {
        "Key": limit.key,
        "KeyExpr": _optional(limit, "key_expr"),
        "Units": _optional(limit, "units"),
        "UnitsExpr": _optional(limit, "units_expr"),
        "LimitExpr": _optional(limit, "limit_values_expr"),
        "Duration": None if duration is None else pb.RateLimitDuration.Name(duration),
    }


def _label(key: str, wish: trigger_pb2.DesiredWorkerLabels) -> JsonObject:
    comparator = _optional(wish, "comparator")
    return {
        "Key": key,
        "StrValue": _optional(wish, "str_value"),
        "IntValue": _optional(wish, "int_value"),
        "Required": _optional(wish, "required"),
        "Weight": _optional(wish, "weight"),
        "Comparator": None if comparator is None else trigger_pb2.WorkerLabelComparator.Name(comparator),
    }


def _filter(declared: pb.DefaultFilter) -> JsonObject:
    payload = parse_object(declared.payload, "payload of a default filter")
    return {"expression": declared.expression, "scope": declared.scope, **_unless_empty(payload=payload)}


def _idempotency(config: pb.IdempotencyConfig) -> JsonObject:
    return {
        "expression": config.expression,
        "ttlMs": config.ttl_ms,
        "method": pb.IdempotencyMethod.Name(config.method),
    }


def _batch(options: pb.TaskBatchConfig) -> JsonObject:
    config = batch_config(options)
    return {
        "batchMaxSize": config.max_size,
        "batchMaxInterval": round(config.interval * 1000),
        "batchGroupKey": config.group_key,
        "batchGroupMaxRuns": config.max_runs,
        **_unless_empty(broadcastOutput=config.broadcast_output),
    }


def _optional(message: Message, field: str) -> Json:
    return getattr(message, field) if message.HasField(field) else None


def _unless_empty(**fields: Json) -> JsonObject:
    """Return the fields that are not empty, as Hatchet leaves out the others."""
    return {key: value for key, value in fields.items() if value}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
