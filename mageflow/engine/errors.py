"""What the engine refuses, and which gRPC status or HTTP code says so.

EngineError
├── InvalidRequestError         INVALID_ARGUMENT     400
│   └── UnknownWorkflowError    (clients of gRPC are not told: Hatchet takes the run and never starts it)
├── NotFoundError               NOT_FOUND            404
├── PreconditionError           FAILED_PRECONDITION  409
└── IdempotencyCollisionError   ALREADY_EXISTS       409

The status decides the latency a caller sees: the SDK retries every code except a few, INVALID_ARGUMENT and NOT_FOUND
among them, so an error without a fix on retry must never leave as INTERNAL or UNKNOWN.
"""

from __future__ import annotations

from dataclasses import dataclass


class EngineError(Exception):
    """A refusal with a message for the caller."""

    grpc_status = "INTERNAL"
    http_status = 500


class InvalidRequestError(EngineError):
    """The request can never succeed as it is."""

    grpc_status = "INVALID_ARGUMENT"
    http_status = 400


class UnknownWorkflowError(InvalidRequestError):
    """No worker has registered a workflow of this name.

    Attributes:
        name: as it was asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown workflow {name!r}: start a worker that registers it first")
        self.name = name


class NotFoundError(EngineError):
    """Nothing is known under that id."""

    grpc_status = "NOT_FOUND"
    http_status = 404


class PreconditionError(EngineError):
    """The thing exists but is in the wrong state."""

    grpc_status = "FAILED_PRECONDITION"
    http_status = 409


@dataclass(frozen=True)
class Collision:
    """One refused trigger: the run that holds the key."""

    existing_run_id: str


class IdempotencyCollisionError(EngineError):
    """One or more triggers carried an idempotency key that a run still holds.

    Attributes:
        collisions: the refused triggers, in request order.
        started: run ids of the triggers of the same bulk request that did start.
        bulk: whether the request was a bulk request; decides the error detail message sent along.
    """

    grpc_status = "ALREADY_EXISTS"
    http_status = 409

    def __init__(self, collisions: list[Collision], started: list[str] | None = None, *, bulk: bool = False) -> None:
        # The SDK compares this text, see engine README.
        super().__init__("idempotency key collision")
        self.collisions = collisions
        self.started = started or []
        self.bulk = bulk
