"""What waits in Hatchet, by task: runs that no worker has started, and since when the oldest of them waits."""

import asyncio
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from hatchet_sdk.clients.rest.api.tenant_api import TenantApi
from hatchet_sdk.clients.rest.models.task_status_stat import TaskStatusStat
from hatchet_sdk.features.metrics import MetricsClient

from mageflow.hatchet.errors_map import as_dispatch_error
from mageflow.interceptors import TaskInfo, WaitingRuns

__all__ = ["waiting_runs"]

_MOST_TASKS: Final = 500
_LIMIT_SECONDS: Final = 5.0

_with_first_attempts: Final[set[str]] = set()
"""Tenants whose Hatchet gives the age of runs without an attempt beside that of all runs."""


async def waiting_runs(metrics: MetricsClient, declared: Collection[TaskInfo]) -> Mapping[str, WaitingRuns]:
    """Read what waits, with one request and without a retry.

    A run that is retried counts, and has no age. Hatchet counts by the name of the task, over all workflows and
    namespaces of the tenant. The name of a task of a workflow becomes ``workflow:task`` if one declared task has it.

    Args:
        metrics: Of the client.
        declared: Tasks that are in the result also if nothing waits.

    Returns:
        By task label. Of tasks that are not declared, the 500 with the most runs.

    Raises:
        DispatchError: Hatchet could not be reached or refused.
    """
    with as_dispatch_error("task stats"):
        found = await asyncio.to_thread(_read, metrics)
    labels = _labels(declared)
    waiting = {info.name: WaitingRuns(0, 0.0) for info in declared}
    others: dict[str, WaitingRuns] = {}
    for name, runs in found.items():
        label = labels.get(name, name)
        (waiting if label in waiting else others)[label] = runs
    most = sorted(others, key=lambda name: others[name].count, reverse=True)[:_MOST_TASKS]
    return waiting | {name: others[name] for name in most}


def _labels(declared: Collection[TaskInfo]) -> Mapping[str, str]:
    """Labels by the name that Hatchet counts by. A name of two declared tasks stays as it is."""
    labels: dict[str, str] = {}
    for info in declared:
        name = info.name.removeprefix(f"{info.workflow_name}:")
        labels[name] = name if name in labels else info.name
    return labels


def _read(metrics: MetricsClient) -> Mapping[str, WaitingRuns]:
    with metrics.client() as client:
        tenant = metrics.client_config.tenant_id
        stats = TenantApi(client).tenant_get_task_stats(tenant, _request_timeout=_LIMIT_SECONDS)
    now = time.time()
    # A retry has the age of its run, its earlier attempts included. An answer without a first attempt does not show
    # whether this Hatchet gives their age, but an earlier one has.
    if any(_first_attempts(each) for stat in stats.values() for each in (stat.queued, stat.running)):
        _with_first_attempts.add(tenant)
    waiting: dict[str, WaitingRuns] = {}
    for name, stat in stats.items():
        queued = stat.queued
        if queued is not None and queued.total:
            oldest = _first_attempts(queued) if tenant in _with_first_attempts else queued.oldest
            since = now if oldest is None else oldest.timestamp()
            waiting[name] = WaitingRuns(queued.total, max(0.0, now - since))
    return waiting


def _first_attempts(stat: TaskStatusStat | None) -> datetime | None:
    """When the oldest run was created that is not retried; None also from a Hatchet or an SDK that does not say it."""
    return getattr(stat, "oldest_excluding_retries", None)
