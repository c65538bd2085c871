"""Idempotency keys: one live run per key in the whole tenant.

A key of the method TTL is held for a time. A key of the method STATUS is held until its run ends, and at most for the
same time.
"""

from __future__ import annotations

from dataclasses import dataclass

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.errors import Collision, IdempotencyCollisionError, InvalidRequestError
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import Run


@dataclass(slots=True, kw_only=True, eq=False)
class _Claim:
    run_id: str
    until: float
    until_run_ends: bool


class Idempotency:
    """The keys, and the runs that hold them.

    Args:
        clock: when keys expire.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._claims: dict[str, _Claim] = {}

    def claim(self, run: Run) -> None:
        """Take the run's key, if its workflow declares one.

        Raises:
            IdempotencyCollisionError: another run holds the key.
            InvalidRequestError: the key expression fails or does not yield text.
        """
        config = run.version.idempotency
        if config is None:
            return
        key = _key(run, config.expression)
        now = self._clock.monotonic()
        holder = self._claims.get(key)
        if holder is not None and holder.until > now:
            raise IdempotencyCollisionError([Collision(holder.run_id)])
        seconds = config.ttl_ms / 1000
        claim = _Claim(run_id=run.id, until=now + seconds, until_run_ends=config.method == pb.STATUS)
        self._claims[key] = claim
        run.idempotency_key = key
        self._clock.later(seconds, self._expire, key, claim)

    def run_finished(self, run: Run) -> None:
        """Free the key of a run, if its method is STATUS."""
        key = run.idempotency_key
        claim = self._claims.get(key) if key is not None else None
        if key is not None and claim is not None and claim.run_id == run.id and claim.until_run_ends:
            del self._claims[key]

    def _expire(self, key: str, claim: _Claim) -> None:
        if self._claims.get(key) is claim:
            del self._claims[key]


def _key(run: Run, expression: str) -> str:
    try:
        key = evaluate(expression, {"input": run.input, "additional_metadata": run.metadata})
    except ExpressionError as error:
        raise InvalidRequestError(f"failed to evaluate idempotency key expression {expression!r}: {error}") from error
    if not isinstance(key, str):
        raise InvalidRequestError(f"idempotency key expression {expression!r} must yield a string, not {key!r}")
    return key
