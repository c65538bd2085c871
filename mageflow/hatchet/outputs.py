"""What the SDK's worker makes of the output of a task, after the function: decided here before, by the same rules.

So an attempt that the worker will report as failed fails inside mageflow, and is counted and settled as such. The rules
are those of ``Runner.serialize_output`` and ``Runner.handle_start_batch`` (hatchet-sdk 1.43.1);
``tests/contract/test_sdk_private_names.py`` holds them.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

from hatchet_sdk.exceptions import IllegalTaskOutputError
from hatchet_sdk.runnables.action import Action
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.worker.runner.runner import Runner
from pydantic import TypeAdapter

from mageflow.hatchet.errors_map import as_non_retryable

__all__ = ["batch_errors", "refuse_too_large", "serialize"]

_MOST_BYTES_PER_CHARACTER: Final = 4
_REPORT_BYTES: Final = 256
"""What a report contains beside the outputs: at most this much."""
_ITEM_BYTES: Final = 64
"""What a report contains beside one output of a batch: the id of the run, and lengths."""


def serialize(validator: TypeAdapter[Any], output: object) -> str | None:
    """The output as the JSON text that the worker sends; None for an empty one.

    Raises:
        IllegalTaskOutputError: It cannot be serialised.
    """
    # The method uses its arguments only. Calling it keeps one rule for what may be sent.
    return Runner.serialize_output(cast("Runner", None), validator, output)


def batch_errors(
    task: Task[Any, Any], validator: TypeAdapter[Any], action: Action, limit_bytes: int, output: Any
) -> tuple[BaseException | None, ...]:
    """Why the worker fails each run of a batch, in the order of the batch; None for a run that succeeds.

    Raises:
        ValueError: The output is not a dict of one output for each run, or a broadcast output is empty.
        IllegalTaskOutputError: A broadcast output cannot be serialised, or the output is too large to be sent.
    """
    members = tuple(action.batch_items or ())
    if task.batch is not None and task.batch.broadcast_output:
        dumped = _not_empty(task, serialize(validator, output))
        refuse_too_large(action, limit_bytes, [dumped] * len(members))
        return (None,) * len(members)
    if not isinstance(output, dict):
        raise ValueError(f"Batch task {task.name!r} must return a dict of outputs")  # noqa: TRY004 - the SDK's type
    found = cast("dict[str, Any]", output)
    if missing := len(set(members) - set(found)):
        raise ValueError(
            f"Batch task {task.name!r} returned no output for {missing} of {len(members)} runs: return one for each "
            "key of its input"
        )
    if unknown := len(set(found) - set(members)):
        raise ValueError(f"Batch task {task.name!r} returned {unknown} outputs for keys that are not in its input")
    errors: list[BaseException | None] = []
    texts: list[str] = []
    for member in members:
        try:
            texts.append(_not_empty(task, serialize(validator, found[member])))
        except Exception as error:  # noqa: BLE001 - as the SDK does
            errors.append(error)
        else:
            errors.append(None)
    refuse_too_large(action, limit_bytes, texts)
    return tuple(errors)


def refuse_too_large(action: Action, limit_bytes: int, outputs: Sequence[str]) -> None:
    """Fail at once where the report could never be sent: otherwise the run hangs until its timeout.

    Raises:
        IllegalTaskOutputError: And a ``NonRetryableException``.
    """
    if limit_bytes <= 0 or sum(map(len, outputs)) * _MOST_BYTES_PER_CHARACTER < limit_bytes - _REPORT_BYTES:
        return
    # As in the report of a batch, which is larger than that of one run.
    size = _REPORT_BYTES + sum(len(each.encode()) + _ITEM_BYTES for each in outputs)
    if size > limit_bytes:
        raise as_non_retryable(
            IllegalTaskOutputError(
                f"The output of {action.action_id} is too large: its report has {size} bytes, and one message to "
                f"Hatchet has at most {limit_bytes} (grpc_max_send_message_length)"
            )
        )


def _not_empty(task: Task[Any, Any], dumped: str | None) -> str:
    if not dumped:
        raise ValueError(f"Batch task {task.name!r} returned an empty output")
    return dumped
