"""Runs of signatures that users start (`mageflow.signatures.SignatureRunner`).

A task signature is run with the SDK's own methods, so that waiting, results, options and children of durable tasks
behave as for the task itself. Only the metadata of the run names the signature.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from hatchet_sdk import Hatchet
from hatchet_sdk.runnables.workflow import BaseWorkflow
from hatchet_sdk.serde import HATCHET_PYDANTIC_SENTINEL
from typing_extensions import override

from mageflow import flows
from mageflow.errors import ConfigurationError
from mageflow.hatchet import declaration_compat
from mageflow.hatchet.enqueue import on_behalf_of
from mageflow.hatchet.register import TaskRegister
from mageflow.hatchet.rest_limit import bounded
from mageflow.hatchet.run_options import (
    check_schedule_options,
    check_task_options,
    flow_options,
    run_call,
    schedule_call,
)
from mageflow.hatchet.scheduled_runs import delete_scheduled_runs
from mageflow.signatures import SentMessage, Signature, SignatureRunner, TaskSignature, deep_merge, with_input_keys
from mageflow.types import DispatchRun

__all__ = ["SdkSignatureRunner"]


class SdkSignatureRunner(SignatureRunner):
    """Runs a task signature with the SDK's own methods, and a chain or swarm through `Flows`.

    Args:
        hatchet: Its stubs run tasks that this process did not declare.
        register: The tasks that it declared.
        flows: Starts and awaits chains and swarms.
    """

    def __init__(self, hatchet: Hatchet, register: TaskRegister, flows: "flows.Flows") -> None:
        self._hatchet = hatchet
        self._scheduled = bounded(hatchet.scheduled)
        self._register = register
        self._flows = flows

    @override
    def run(self, signature: Signature, input: object, options: Mapping[str, Any]) -> Any:
        if not isinstance(signature, TaskSignature):
            return _blocking(self.aio_run(signature, input, options), "run")
        check_task_options(options)
        runnable, message = self._prepared(signature, input)
        with on_behalf_of(self._dispatch_run(signature)):
            method, keywords = run_call("run", options)
            return getattr(runnable, method)(message, **keywords)

    @override
    async def aio_run(self, signature: Signature, input: object, options: Mapping[str, Any]) -> Any:
        if not isinstance(signature, TaskSignature):
            await self._flows.start(signature.key, input, options=flow_options(options))
            return await self._flows.wait(signature.key) if options.get("wait_for_result", True) else signature
        check_task_options(options)
        runnable, message = self._prepared(signature, input)
        with on_behalf_of(self._dispatch_run(signature)):
            method, keywords = run_call("aio_run", options)
            return await getattr(runnable, method)(message, **keywords)

    @override
    def run_no_wait(self, signature: Signature, input: object, options: Mapping[str, Any]) -> Any:
        # The reference of a flow's run is the signature itself.
        if not isinstance(signature, TaskSignature):
            _blocking(self._flows.start(signature.key, input, options=flow_options(options)), "run_no_wait")
            return signature
        return self.run(signature, input, {**options, "wait_for_result": False})

    @override
    async def aio_run_no_wait(self, signature: Signature, input: object, options: Mapping[str, Any]) -> Any:
        # The reference of a flow's run is the signature itself.
        if not isinstance(signature, TaskSignature):
            await self._flows.start(signature.key, input, options=flow_options(options))
            return signature
        return await self.aio_run(signature, input, {**options, "wait_for_result": False})

    @override
    def schedule(self, signature: Signature, run_at: object, input: object, options: Mapping[str, Any]) -> Any:
        return _blocking(self.aio_schedule(signature, run_at, input, options), "schedule")

    @override
    async def aio_schedule(
        self, signature: Signature, run_at: object, input: object, options: Mapping[str, Any]
    ) -> Any:
        at = _moment(run_at)
        if not isinstance(signature, TaskSignature):
            if "wait_for_result" in options:
                raise ConfigurationError("a scheduled flow has no option 'wait_for_result': it starts later")
            await self._flows.schedules.schedule(signature.key, at, input, flow_options(options))
            return signature
        check_schedule_options(options)
        runnable, message = self._prepared(signature, input)
        if signature.is_stored:
            # Before the call to Hatchet: a run that is due must find its signature.
            await self._flows.schedules.keep(signature.key, at)
        with on_behalf_of(self._dispatch_run(signature)):
            return await runnable.aio_schedule(at, message, **schedule_call(options))

    @override
    def unschedule(self, signature: Signature) -> list[datetime]:
        return _blocking(self.aio_unschedule(signature), "unschedule")

    @override
    async def aio_unschedule(self, signature: Signature) -> list[datetime]:
        if isinstance(signature, TaskSignature):
            return await delete_scheduled_runs(self._scheduled, signature.key) if signature.is_stored else []
        at = await self._flows.schedules.unschedule(signature.key)
        return [] if at is None else [at]

    def _prepared(self, signature: TaskSignature, message: object) -> tuple[Any, object]:
        declared = self._register.find_workflow(signature.task_name)
        validator = None if declared is None else declared.runnable.input_validator
        sent = SentMessage.of(message, validator)
        if isinstance(message, Mapping) and declared is not None:
            values = with_input_keys(declared.runnable.input_validator_type, sent.whole)
            sent = SentMessage(values, values)
        merged = deep_merge(sent.whole, signature.kwargs, sent.explicit)
        if declared is None or validator is None:
            runnable: BaseWorkflow[Any] = self._hatchet.stubs.task(
                name=signature.task_name, input_validator=dict[str, Any], output_validator=dict[str, Any]
            )
            return declaration_compat.taking_json(runnable), merged
        validator.validate_python(merged, context=HATCHET_PYDANTIC_SENTINEL)
        # Not the validated object: the worker must validate what the caller's object held, and do it once.
        return declaration_compat.taking_json(declared.runnable), merged

    def _dispatch_run(self, signature: TaskSignature) -> DispatchRun:
        if not signature.is_stored:
            return DispatchRun(signature.task_name, "{}", "", "", source="direct")
        return DispatchRun(signature.task_name, "{}", signature.key, self._flows.new_run_key(signature))


def _moment(run_at: object) -> datetime:
    if not isinstance(run_at, datetime):
        raise ConfigurationError(f"run_at must be a datetime, not {type(run_at).__name__}")
    return run_at if run_at.tzinfo else run_at.replace(tzinfo=UTC)


def _blocking(work: Coroutine[Any, Any, Any], method: str) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    work.close()
    raise ConfigurationError(
        f"{method} blocks here, and this is an event loop: write await signature.aio_{method}(...)"
    )
