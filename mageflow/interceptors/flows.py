"""Calls and events about chains, swarms, callbacks and the cluster view. Facts only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from mageflow._frozen import frozen
from mageflow.interceptors.events import Event

__all__ = [
    "CallbackSend",
    "ClusterView",
    "FlowFinish",
    "FlowStart",
    "FlowStep",
    "RunResend",
    "SwarmFill",
    "SwarmLeftOpen",
]

FlowKind = Literal["chain", "swarm"]


@dataclass(slots=True, eq=False)
class FlowStart:
    """A chain or swarm is started: the script that marks it as started. Its first runs are sent afterwards."""

    kind: FlowKind
    flow_id: str
    name: str = ""
    """Filled in for a nested flow, whose name is in its stored definition."""
    steps: int = 0
    """Filled in."""
    traceparent: str = ""
    """An interceptor may set it on entry: the span that becomes the parent of every run of the flow. Stored with the
    flow."""
    started: bool = False
    """Filled in: False when the flow had been started before, or could not be started."""


@dataclass(slots=True, eq=False)
class FlowStep(Event):
    """A step of a chain or an item of a swarm was admitted: its function is about to run."""

    kind: FlowKind
    flow_id: str
    name: str
    step: int
    handover_seconds: float | None
    """Seconds since the end of what came before, by the clock of Redis; None where nothing did.

    What came before is the step before, or the item whose place in the swarm this one has. For a first step or item of
    a nested flow it is what came before the flow.
    """


@dataclass(slots=True, eq=False)
class FlowFinish(Event):
    """A flow ended. Published once, by the process whose script ended it."""

    kind: FlowKind
    flow_id: str
    name: str
    outcome: Literal["succeeded", "failed", "cancelled"]
    started_at: float
    """Epoch seconds, by the clock of Redis."""
    ended_at: float
    steps: int
    traceparent: str
    """Of the span that started the flow (`FlowStart.traceparent`)."""
    critical_task: str = ""
    """The task whose end ended the flow."""


@frozen
class SwarmLeftOpen(Event):
    """A caller waits for a swarm whose items have all ended and which is not closed. Published once per wait."""

    flow_id: str
    name: str
    items: int
    advice: str
    """What to do, one sentence."""


@dataclass(slots=True, eq=False)
class SwarmFill:
    """Free places of a swarm are filled, in one call to Hatchet."""

    flow_id: str
    name: str
    count: int
    """Items handed over in this call."""
    running: int
    """Items that run or are sent, these included."""
    pending: int
    """Items that wait for a place."""
    traceparent: str
    """Of the span that started the flow."""


@dataclass(slots=True, eq=False)
class CallbackSend(Event):
    """One callback was handed to Hatchet, or could not be."""

    kind: Literal["success", "error"]
    result: Literal["enqueued", "failed"]
    target: str
    """Name of the callback's task; for a callback that is a flow, the flow's Redis key; for one that failed in its
    task, its own key."""
    signature_id: str
    """Id of the signature or flow whose callback it is."""
    error_type: str = ""
    """Class of the error that kept it from being sent."""


@dataclass(slots=True, eq=False)
class RunResend(Event):
    """A run is handed to Hatchet again, because the run before it is gone."""

    reason: Literal["lost", "unscheduled"]
    """``lost``: Hatchet does not know the run (any more); ``unscheduled``: no worker took it within its schedule
    timeout."""
    target: str
    """Redis key of the member that is sent again."""
    signature_id: str
    """Id of its signature or flow."""
    run_id: str
    """Hatchet's id of the run that is gone."""
    times: int
    """How often this member has been sent again, this time included."""


@dataclass(slots=True, eq=False)
class ClusterView(Event):
    """A reading of everything stored, made every few seconds by the elected leader of the cluster.

    On every other process, and when leadership ends, only ``is_leader`` is set.
    """

    is_leader: bool
    valid_until: float = inf
    """By ``time.monotonic()``: when the leader's lease ends. Another process may lead from then on, so the reading
    must not be used after that."""
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
