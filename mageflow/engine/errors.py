"""Requests that the engine refuses, and the gRPC status or HTTP code of each.

::

    mageflow.errors.EngineError
    └── RequestError                    INTERNAL             500
        ├── InvalidRequestError         INVALID_ARGUMENT     400
        │   └── UnknownWorkflowError    (never over gRPC: Hatchet accepts such a run and never starts it)
        ├── NotFoundError               NOT_FOUND            404
        ├── ForbiddenError              PERMISSION_DENIED    403
        ├── PreconditionError           FAILED_PRECONDITION  409
        └── IdempotencyCollisionError   ALREADY_EXISTS       409

The SDK retries every gRPC status except a few, INVALID_ARGUMENT and NOT_FOUND among them. An error that a retry cannot
fix must therefore never be sent as INTERNAL or UNKNOWN.
"""

from __future__ import annotations

from dataclasses import dataclass

from mageflow.errors import EngineError


class RequestError(EngineError):
    """A request is refused. The text of the error is sent to the caller."""

    grpc_status = "INTERNAL"
    http_status = 500


class InvalidRequestError(RequestError):
    """The request can never succeed without a change."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class UnknownWorkflowError(InvalidRequestError):
    """No worker has registered a workflow of this name.

    Attributes:
        name: the name in the request.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown workflow {name!r}: start a worker that registers it first")
        self.name = name


class NotFoundError(RequestError):
    """There is nothing with this id."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class ForbiddenError(RequestError):
    """The sender is not allowed to do this: a credential or signature is missing or wrong."""

    grpc_status = "PERMISSION_DENIED"
    http_status = 403


class PreconditionError(RequestError):
    """The object of the request exists, but its status does not allow the request."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


@dataclass(frozen=True)
class Collision:
    """One refused trigger, and the run that holds its key."""

    existing_run_id: str


class IdempotencyCollisionError(RequestError):
    """One or more triggers have an idempotency key that a live run holds.

    Attributes:
        collisions: the refused triggers, in request order.
        started: ids of the runs that the same bulk request started.
        bulk: whether the request was a bulk request, which decides on the type of the error details.
    """

    grpc_status = "ALREADY_EXISTS"
    http_status = 409

    def __init__(self, collisions: list[Collision], started: list[str] | None = None, *, bulk: bool = False) -> None:
        # The SDK compares this text with its own.
        super().__init__("idempotency key collision")
        self.collisions = collisions
        self.started = started or []
        self.bulk = bulk
