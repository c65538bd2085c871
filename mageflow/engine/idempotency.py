"""Idempotency keys: one live run per key, tenant-wide.

TTL keys are held for a time; STATUS keys until the run has ended, with the same time as upper bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_workflows_pb2 as pb
from mageflow.engine.errors import Collision, IdempotencyCollisionError, InvalidRequestError
from mageflow.engine.expressions import ExpressionError, evaluate
from mageflow.engine.model import Run

if TYPE_CHECKING:
    from mageflow.engine.core import Engine


@dataclass(slots=True, kw_only=True, eq=False)
class _Claim:
    run_id: str
    until: float
    until_run_ends: bool


class Idempotency:
    """The map from key to the run that holds it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._claims: dict[str, _Claim] = {}

    def claim(self, run: Run) -> None:
        """Take the run's key, if its workflow declares one.

        Raises:
            IdempotencyCollisionError: another run holds the key.
            InvalidRequestError: the key expression fails or yields something other than text.
        """
        config = run.version.idempotency
        if config is None:
            return
        variables = {"input": run.input, "additional_metadata": run.metadata}
        try:
            key = evaluate(config.expression, variables)
        except ExpressionError as error:
            raise InvalidRequestError(
                f"failed to evaluate idempotency key expression {config.expression!r}: {error}"
            ) from error
        if not isinstance(key, str):
            raise InvalidRequestError(
                f"idempotency key expression {config.expression!r} must yield a string, not {key!r}"
            )
        now = self._engine.clock.monotonic()
        holder = self._claims.get(key)
        if holder is not None and holder.until > now:
            raise IdempotencyCollisionError([Collision(holder.run_id)])
        seconds = config.ttl_ms / 1000
        claim = _Claim(run_id=run.id, until=now + seconds, until_run_ends=config.method == pb.STATUS)
        self._claims[key] = claim
        run.idempotency_key = key
        self._engine.clock.later(seconds, self._expire, key, claim)

    def run_finished(self, run: Run) -> None:
        """Free a STATUS key."""
        key = run.idempotency_key
        claim = self._claims.get(key) if key is not None else None
        if key is not None and claim is not None and claim.run_id == run.id and claim.until_run_ends:
            del self._claims[key]

    def _expire(self, key: str, claim: _Claim) -> None:
        if self._claims.get(key) is claim:
            del self._claims[key]
