"""mageflow's errors as the SDK's, and the SDK's as mageflow's."""

import functools
import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, cast

import grpc
from hatchet_sdk.clients.rest.exceptions import ApiException
from hatchet_sdk.exceptions import (
    TASK_RUN_ERROR_METADATA_KEY,
    DedupeViolationError,
    NonRetryableException,
)
from urllib3.exceptions import HTTPError

from mageflow.errors import DispatchError, ForkedProcessError
from mageflow.hatchet.features import BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError

__all__ = [
    "DISPATCH_FAILURES",
    "as_dispatch_error",
    "as_non_retryable",
    "describe",
    "is_non_retryable",
    "is_refusal",
    "is_too_large",
    "is_unanswered",
    "raised_error",
]

DISPATCH_FAILURES = (
    ForkedProcessError,
    grpc.RpcError,
    ApiException,
    DedupeViolationError,
    IdempotencyCollisionError,
    BulkTriggerIdempotencyCollisionError,
    OSError,
    HTTPError,
)
"""The errors of calls to Hatchet (SDK 1.43.1). Older SDKs let those of urllib3 pass."""


_REFUSALS = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # also what grpc says of a message that is too large
    }
)

_PASSING = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})
"""What a proxy answers for a Hatchet that does not. An error of the SDK without a status had no answer at all."""


def is_refusal(error: BaseException) -> bool:
    """Whether Hatchet answered and refused. A retry is refused too unless something changes."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return error.code() in _REFUSALS
    if isinstance(error, ApiException):
        status = error.status or 0
        return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING
    return isinstance(error, DedupeViolationError | IdempotencyCollisionError | BulkTriggerIdempotencyCollisionError)


def is_unanswered(error: BaseException) -> bool:
    """Whether Hatchet is away, or did not answer in time."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    if isinstance(error, ApiException):
        return not error.status or error.status in _AWAY
    return isinstance(error, TimeoutError | ConnectionError | HTTPError)


def is_too_large(error: BaseException) -> bool:
    """Whether a message is larger than Hatchet takes: by default 4 MiB. It never takes it."""
    if (
        not isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        or error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED
    ):
        return False
    details = (error.details() or "").lower()
    return "larger than max" in details or "message too large" in details or "exceeds maximum" in details


@contextmanager
def as_dispatch_error(target: str) -> Generator[None]:
    """Around calls to Hatchet: one of `DISPATCH_FAILURES` becomes a `DispatchError` about the target."""
    try:
        yield
    except DISPATCH_FAILURES as error:
        raise DispatchError(
            target, describe(error), refused=is_refusal(error), unanswered=is_unanswered(error)
        ) from error


def as_non_retryable(error: Exception) -> Exception:
    """The same error, but Hatchet makes no further attempt after it: it is a ``NonRetryableException`` too.

    ``except SignatureNotFoundError`` still catches it, and Hatchet's dashboard shows the same name.
    """
    if isinstance(error, NonRetryableException):
        return error
    kind = _twin(type(error))
    twin = kind.__new__(kind)
    twin.__dict__.update(error.__dict__)
    twin.args = error.args
    twin.__cause__ = error.__cause__ or error
    return twin


def describe(error: BaseException) -> str:
    """One line about a failed call, without the stack trace of the driver."""
    if isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")


def is_non_retryable(error: BaseException) -> bool:
    """Whether Hatchet makes no further attempt after this error, also if the task has retries left."""
    return isinstance(error, NonRetryableException)


def raised_error(text: str) -> tuple[str, str]:
    """The class name and the text of the exception behind an error that Hatchet has stored for a run.

    The SDK writes the error of a task function as ``<class>: <text>``, the traceback, and a line of JSON; a line feed
    in the text has a backslash before it (``TaskRunError.serialize``, 1.43.1; its ``deserialize`` fails for a text of
    several lines). Hatchet writes its own errors in words.

    Returns:
        Class name and text; ``TaskTimedOut`` and no text for a timeout; an empty name and the whole text if no task
        function raised the error.
    """
    if _TIMED_OUT.match(text):
        return "TaskTimedOut", ""
    report, _, last_line = text.rpartition("\n")
    if not _is_error_metadata(last_line):
        return "", text
    header = _END_OF_HEADER.split(report, maxsplit=1)[0]
    kind, _, message = header.partition(": ")
    return kind.replace(":::", ": "), message.replace("\\\n", "\n")


_TIMED_OUT: Final = re.compile(r"Task exceeded timeout of \S+$")
_END_OF_HEADER: Final = re.compile(r"(?<!\\)\n")


def _is_error_metadata(line: str) -> bool:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and TASK_RUN_ERROR_METADATA_KEY in found


@functools.lru_cache(maxsize=64)
def _twin(kind: type[Exception]) -> type[Exception]:
    bases = cast("tuple[type[Exception], ...]", (kind, NonRetryableException))
    return type(kind.__name__, bases, {"__module__": kind.__module__, "__doc__": kind.__doc__})
