"""The keys that travel with a run, in Hatchet's additional metadata. Keys and values are strings.

========================  ======================================================  =====================================
Key                       Written by                                              Read by
========================  ======================================================  =====================================
``mageflow_signature``    `stamp`: key of the signature the run is started from   the worker, to load the signature
``mageflow_dedupe``       `stamp`: the same for the same step, however often it   admission, to find a step that is sent
                          is sent                                                 twice
``mageflow_flow``         `stamp`: ``<kind>:<flow id>:<path> <name of the flow>`` the worker, for logs and spans
``mageflow_sender``       `stamp`: id of the task that sent a signature's run;    admission, to find copied metadata
                          blank outside of tasks
``mageflow_link``         `stamp`: traceparent of the step before; telemetry:     telemetry, for the span's link
                          see below
``mageflow_source``       `stamp`: why the run was sent (`types.Source`)          telemetry
``mageflow_enqueued_at``  `stamp`: epoch seconds                                  telemetry, for the queue wait; locks,
                                                                                  for the age of a deadlock's members
``mageflow_due_at``       `stamp`: epoch seconds, of a scheduled run              telemetry, for the queue wait
``mageflow_schedule``     `stamp`: id of the signature, of a scheduled run        `aio_unschedule`, to find the run; the
                                                                                  key has colons, which Hatchet's filter
                                                                                  refuses
``traceparent``           telemetry, the SDK's instrumentor, or the engine        the same, for the span's parent
``tracestate``            telemetry                                               telemetry
``baggage``               telemetry, where `Settings.propagate_baggage` is on     telemetry
``prom_mageflow_source``  telemetry, where `Settings.hatchet_queue_by_source` is  Hatchet: its queue size by source
                          on: the source
========================  ======================================================  =====================================

The SDK and the engine merge the metadata of a parent run into its children. A key that is not written would be
inherited, so every run is sent with all of `OWN_KEYS`; a key without a value is blank.

A ``mageflow_link`` that equals the ``traceparent`` says: this run starts its own trace, with a link. Telemetry writes
it for the items of a bulk call above `Settings.trace_fanout_limit`.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from mageflow.types import DispatchRun, Source

__all__ = [
    "KEY_BAGGAGE",
    "KEY_DEDUPE",
    "KEY_DUE_AT",
    "KEY_ENQUEUED_AT",
    "KEY_FLOW",
    "KEY_LINK",
    "KEY_QUEUE_SOURCE",
    "KEY_SCHEDULE",
    "KEY_SENDER",
    "KEY_SIGNATURE",
    "KEY_SOURCE",
    "KEY_TRACEPARENT",
    "KEY_TRACESTATE",
    "OWN_KEYS",
    "SHARED_KEYS",
    "blank",
    "is_copied",
    "of_program",
    "stamp",
]

KEY_SIGNATURE: Final = "mageflow_signature"
KEY_DEDUPE: Final = "mageflow_dedupe"
KEY_FLOW: Final = "mageflow_flow"
KEY_SENDER: Final = "mageflow_sender"
KEY_LINK: Final = "mageflow_link"
KEY_SOURCE: Final = "mageflow_source"
KEY_ENQUEUED_AT: Final = "mageflow_enqueued_at"
KEY_DUE_AT: Final = "mageflow_due_at"
KEY_SCHEDULE: Final = "mageflow_schedule"
KEY_QUEUE_SOURCE: Final = "prom_mageflow_source"
"""Hatchet exports its queue size by every key that begins with ``prom_``
(``hatchet_tenant_additional_metadata_queue_size``, labels ``key`` and ``value``)."""

KEY_TRACEPARENT: Final = "traceparent"
KEY_TRACESTATE: Final = "tracestate"
KEY_BAGGAGE: Final = "baggage"

OWN_KEYS: Final = (
    KEY_SIGNATURE,
    KEY_DEDUPE,
    KEY_FLOW,
    KEY_SENDER,
    KEY_LINK,
    KEY_SOURCE,
    KEY_ENQUEUED_AT,
    KEY_DUE_AT,
    KEY_SCHEDULE,
)
"""Keys of mageflow's own that every run has, blank where unused."""

_WITHOUT_SIGNATURE: Final = DispatchRun("", "{}", "", "")

_BLANKS: Final = dict.fromkeys(OWN_KEYS, "")

SHARED_KEYS: Final = (KEY_TRACEPARENT, KEY_TRACESTATE, KEY_BAGGAGE)
"""Keys that the SDK's instrumentor and the engine use as well."""

_NOT_OF_PROGRAM: Final = frozenset((*OWN_KEYS, *SHARED_KEYS, KEY_QUEUE_SOURCE))


def blank(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with every own key blank: nothing that is true of one run alone is left for its children."""
    return {**metadata, **_BLANKS}


def of_program(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without the keys of this module: what a program has given a run."""
    return {key: value for key, value in metadata.items() if key not in _NOT_OF_PROGRAM}


def is_copied(metadata: Mapping[str, Any], parent_task_id: str) -> bool:
    """Whether the keys in a run's metadata were written for another run.

    A program may pass the metadata of its own run on, through a client that does not write the keys anew. Such a run is
    a child of the running task, and the keys name the sender of another run.

    Args:
        metadata: Of the run.
        parent_task_id: Hatchet's id of the task that sent the run; empty if it is unknown or there is none.
    """
    return bool(parent_task_id) and metadata.get(KEY_SENDER, parent_task_id) != parent_task_id


def stamp(
    metadata: Mapping[str, Any],
    *,
    source: Source,
    run: DispatchRun = _WITHOUT_SIGNATURE,
    due_at: float | None = None,
    schedule: str = "",
    sender: str = "",
) -> dict[str, Any]:
    """A copy with every own key written, for a run that is sent now.

    Metadata of a cron is copied to every run the cron ever starts: use `blank` for it, and write only the source.

    Args:
        metadata: The program's own, and what a parent run has left.
        source: Why the run is sent.
        run: What it is started from, if that is a signature.
        due_at: Epoch seconds at which it is due, if that is later than now.
        schedule: See the table of the module.
        sender: See the table of the module.
    """
    return {
        **metadata,
        KEY_SIGNATURE: run.signature_key,
        KEY_DEDUPE: run.dedupe_key,
        KEY_FLOW: run.flow,
        KEY_SENDER: sender,
        KEY_LINK: run.link,
        KEY_SOURCE: source,
        KEY_ENQUEUED_AT: f"{time.time():.6f}",
        KEY_DUE_AT: "" if due_at is None else f"{due_at:.6f}",
        KEY_SCHEDULE: schedule,
    }
