"""How an attempt ended: what a settlement is given, from the runner through the flows to the script."""

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from mageflow._frozen import frozen
from mageflow.signatures import FailureRecord
from mageflow.types import SettledOutcome

__all__ = ["AttemptOutcome", "ReportedOutcome"]

ReportedOutcome = SettledOutcome | Literal["lost", "unscheduled"]
"""``lost``: Hatchet does not know the run; ``unscheduled``: Hatchet cancelled it because no worker took it within its
schedule timeout. The member is sent again for both, and fails when it has been sent too often."""


@frozen
class AttemptOutcome:
    """How one attempt of a run ended.

    Attributes:
        outcome: How it ended.
        result_json: The result as JSON text; for ``succeeded``.
        error: Why it ended; for everything else.
        will_retry: Whether the engine is expected to run another attempt. Then the failure is recorded, and nothing
            follows yet.
        max_failures: With how many failed attempts the engine gives up although `will_retry` is set; 0 if unknown. The
            failure of the attempt before may reach Redis only after this attempt was admitted.
        input_json: The input of the run as JSON text; error callbacks receive it.
        reported_by_engine: The outcome was read from Hatchet, not reported by the worker; it applies to any attempt.
        stages_ms: Milliseconds that the attempt spent in each stage (`Attempt.stage_seconds`), and its ``queue``.
    """

    outcome: ReportedOutcome
    result_json: str | None = None
    error: FailureRecord | None = None
    will_retry: bool = False
    max_failures: int = 0
    input_json: str = ""
    reported_by_engine: bool = False
    stages_ms: Mapping[str, int] = field(default_factory=dict[str, int])
