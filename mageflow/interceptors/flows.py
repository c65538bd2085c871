"""Calls about chains, swarms and callbacks. Facts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

__all__ = ["CallbackSend", "ClusterView", "FlowFinish", "FlowStart", "FlowStep", "RunResend", "SwarmFill"]

FlowKind = Literal["chain", "swarm"]


@dataclass(slots=True, eq=False)
class FlowStart:
    """A chain or swarm is about to begin; around the script that starts it and the first call to Hatchet."""

    kind: FlowKind
    flow_id: str
    name: str = ""
    """Filled in when the flow is nested in another: then it is only known afterwards."""
    steps: int = 0
    """Filled in."""
    traceparent: str = ""
    """Filled in on entry, by whoever traces: the context every run of the flow belongs under. It is stored."""
    started: bool = False
    """Filled in: False when the flow had been started before, or could not be."""


@dataclass(slots=True, eq=False)
class FlowStep:
    """A step or item was admitted; entered and left at once."""

    kind: FlowKind
    flow_id: str
    name: str
    step: int
    handover_seconds: float | None
    """From the end of the step before, by the clock of Redis; None for items and first steps."""


@dataclass(slots=True, eq=False)
class FlowFinish:
    """A flow ended; entered and left at once, in the one process whose script ended it."""

    kind: FlowKind
    flow_id: str
    name: str
    outcome: Literal["succeeded", "failed", "cancelled"]
    started_at: float
    """Epoch seconds, by the clock of Redis."""
    ended_at: float
    steps: int
    traceparent: str
    """The flow's start context."""
    critical_task: str = ""
    """The task whose end ended the flow."""


@dataclass(slots=True, eq=False)
class SwarmFill:
    """Free places of a swarm are filled in one call to Hatchet; around that call."""

    flow_id: str
    name: str
    count: int
    running: int
    pending: int
    traceparent: str


@dataclass(slots=True, eq=False)
class CallbackSend:
    """One callback was handed to Hatchet, or could not be; entered and left at once."""

    kind: Literal["success", "error"]
    result: Literal["enqueued", "failed", "skipped"]
    target: str
    """The callback's task, or its flow's key."""
    signature_id: str
    error_type: str = ""


@dataclass(slots=True, eq=False)
class RunResend:
    """A run that was handed to Hatchet did not come to its end there, and is handed over again; left at once."""

    reason: Literal["lost", "unscheduled"]
    """``lost``: Hatchet does not know the run (any more); ``unscheduled``: no worker took it within its schedule
    timeout."""
    target: str
    """Key of the member the run belongs to."""
    signature_id: str
    run_id: str
    """The run that is gone."""
    times: int
    """How often this member has been sent again by now."""


@dataclass(slots=True, eq=False)
class ClusterView:
    """What one elected process reads of everything stored; entered and left at once, every few seconds.

    On a process that is not the leader only ``is_leader`` is set.
    """

    is_leader: bool
    believed_until: float = inf
    """By ``time.monotonic()``: the end of the lease it was read under. Nobody may show it afterwards."""
    signatures: Mapping[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """Stored records by kind and status."""
    active: Mapping[str, float] = field(default_factory=dict[str, float])
    """Flows that have begun and not ended, by kind."""
    oldest_seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Age of the oldest of them, by kind."""
    items: Mapping[str, float] = field(default_factory=dict[str, float])
    """Items of these swarms: ``pending``, ``running``, ``done``, ``failed``."""
    orphaned: Mapping[str, float] = field(default_factory=dict[str, float])
    """By the name of each lock that is held: how many of them by an owner that has missed its renewal."""
    wait_graph: Mapping[str, float] = field(default_factory=dict[str, float])
    """``nodes`` (runs that hold or wait), ``edges`` (waits) and ``longest_path`` (runs, the last holder included)."""
