"""Where the time of a signature or flow went: a span for each member, with its budget. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mageflow.store import Description, MemberDescription

__all__ = ["PARTS", "MemberSpan", "Timeline", "timeline_of"]

PARTS: tuple[str, ...] = ("hand-over", "queue", "loading", "stagger", "lock", "body", "running", "other")
"""Where time goes, in the order of a run.

``hand-over``: from the decision to start it until Hatchet had the run. ``queue``: until a worker had it; of a run that
has not ended, both together. ``loading``: reading the signature. ``running``: stagger, lock and body of the attempt
that runs now, which are known when it ends. ``other``: between attempts, and what no stage counts.
"""

_STAGES: Mapping[str, str] = {"stagger": "stagger", "lock_wait": "lock", "body": "body"}
_ENDED = ("done", "failed", "cancelled", "interrupted")


@dataclass(frozen=True, slots=True)
class MemberSpan:
    """One bar of the time line."""

    member: MemberDescription
    begin_s: float
    """Seconds since the time line begins, at the decision to start the member."""
    seconds: float
    """Until it ended, or until now."""
    parts: Mapping[str, float]
    """Seconds by part, in the order of `PARTS`; parts of 0 s are left out. Their sum is ``seconds``."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The spans of the members that began, in their order."""

    began_at: float
    """Epoch seconds."""
    seconds: float
    """Until the flow ended, or until now."""
    spans: tuple[MemberSpan, ...]
    budget: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds by part, over all spans of tasks. Items that run side by side all count."""


def timeline_of(described: Description) -> Timeline | None:
    """The time line of the members that are described. None if none of them has begun."""
    now = described.at.timestamp()
    begun = [each for each in described.members if _begin(each) is not None]
    if not begun:
        return None
    first = min(_begin(each) or now for each in begun)
    is_record = described.path.is_record and described.kind != "task"
    began = min(first, described.started_at.timestamp()) if is_record and described.started_at else first
    spans = tuple(_span(each, began, now) for each in begun)
    last = max(began + span.begin_s + span.seconds for span in spans)
    budget = {part: sum(span.parts.get(part, 0.0) for span in spans if not span.member.flow_key) for part in PARTS}
    return Timeline(began, last - began, spans, _without_zeros(budget.items()))


def _begin(member: MemberDescription) -> float | None:
    """When its start was decided, in epoch seconds. A run that a user starts is decided outside of the store."""
    if not member.stage:
        return None
    if member.decided_at is not None:
        return member.decided_at.timestamp()
    if member.admitted_at is not None:
        return member.admitted_at.timestamp() - member.stages.get("queue", 0.0)
    return None


def _span(member: MemberDescription, began: float, now: float) -> MemberSpan:
    begin = _begin(member) or now
    end = member.changed_at.timestamp() if member.stage in _ENDED and member.changed_at is not None else now
    seconds = max(0.0, end - begin)
    return MemberSpan(member, begin - began, seconds, _parts(member, begin, begin + seconds))


def _parts(member: MemberDescription, begin: float, end: float) -> dict[str, float]:
    if member.flow_key:
        return {}
    if member.admitted_at is None:
        return _without_zeros([("queue" if member.stage == "sent" else "hand-over", end - begin)])
    # The clocks of sender, worker and Redis differ: no part is longer than what is left.
    admitted = min(max(member.admitted_at.timestamp(), begin), end)
    before = admitted - begin
    loading = min(member.stages.get("signature_load", 0.0), before)
    queue = min(member.stages["queue"], before - loading) if "queue" in member.stages else before - loading
    parts = {"hand-over": before - loading - queue, "queue": queue, "loading": loading}
    left = end - admitted
    for stage, part in _STAGES.items():
        parts[part] = min(member.stages.get(stage, 0.0), left)
        left -= parts[part]
    parts["running" if member.stage == "active" else "other"] = left
    return _without_zeros((part, parts.get(part, 0.0)) for part in PARTS)


def _without_zeros(parts: Iterable[tuple[str, float]]) -> dict[str, float]:
    return {part: seconds for part, seconds in parts if seconds >= 0.001}  # noqa: PLR2004 - stored times are whole milliseconds


def cells_of(span: MemberSpan, total_s: float, width: int) -> Sequence[tuple[str, int]]:
    """The bar of a span in a width: parts with their number of cells, an empty part for the time before it.

    A span has at least one cell.
    """
    if total_s <= 0:
        return [("", 0), (next(iter(span.parts), "other"), 1)]
    per_cell = total_s / width
    start = min(round(span.begin_s / per_cell), width - 1)
    stop = max(start + 1, min(width, round((span.begin_s + span.seconds) / per_cell)))
    cells: list[tuple[str, int]] = [("", start)]
    at, used = 0.0, start
    parts = span.parts or {"flow": span.seconds}
    for part, seconds in parts.items():
        at += seconds
        until = min(stop, round((span.begin_s + at) / per_cell))
        if until > used:
            cells.append((part, until - used))
            used = until
    if used < stop:
        longest = max(parts, key=lambda part: parts[part])
        cells.append((longest, stop - used))
    return cells
