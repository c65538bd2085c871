"""Signatures, flows and locks in Redis. No other package uses Redis.

`paths` and `keys` own the names, `redis` connections and scripts, `records` signatures and flows, `locks` the locks.
``lua`` holds the scripts. ``docs/storage.md`` documents what is stored. The package refuses to know Hatchet: a script's
decision is returned, and a higher floor sends it.

Names are imported on first use (``docs/architecture.md``).
"""

from typing import TYPE_CHECKING

from mageflow._lazy import lazy_names

if TYPE_CHECKING:
    from mageflow.store.keys import SHARDS, Keys, RecordKeys, signature_id_of
    from mageflow.store.locks.records import (
        FoundCycle,
        LockClaim,
        LockHolding,
        LockOwner,
        LockReply,
        LockSnapshot,
        LockVerdict,
        LockWait,
        VictimPolicy,
    )
    from mageflow.store.locks.store import LockStore
    from mageflow.store.paths import (
        UNDELIVERABLE,
        CallbackKind,
        DedupeKey,
        FlowPlace,
        MemberPath,
        flow_of_run,
        flow_run_id,
        join_member_key,
        split_member_key,
    )
    from mageflow.store.records.admission import Admission, AdmissionRequest, locate
    from mageflow.store.records.census import Census
    from mageflow.store.records.copies import SignatureCopies
    from mageflow.store.records.damage import DamageNote, list_damaged
    from mageflow.store.records.decisions import (
        ClosedFlow,
        Decision,
        FilledPlaces,
        Inspection,
        LifecycleDecision,
        LifecycleVerdict,
        ResentRun,
        Settlement,
        SettleVerdict,
        SilentRun,
        StartDecision,
        StartVerdict,
        SwarmDecision,
        SwarmVerdict,
    )
    from mageflow.store.records.definitions import StoredDefinition
    from mageflow.store.records.description import Description, MemberDescription, describe_record, find_records
    from mageflow.store.records.entries import (
        Acknowledgement,
        ActionEntry,
        CancelEntry,
        MemberEntry,
        OutboxEntry,
        ReportEntry,
    )
    from mageflow.store.records.failures import FailedMember, FailurePage
    from mageflow.store.records.lifecycle import StartRequest
    from mageflow.store.records.outcome import AttemptOutcome, ReportedOutcome
    from mageflow.store.records.search import FoundSignature, kinds_of, search_records
    from mageflow.store.records.store import Store
    from mageflow.store.records.stored import chain_header, swarm_header, task_header
    from mageflow.store.records.views import AnySignature
    from mageflow.store.redis.connections import RedisClient
    from mageflow.store.redis.port import RedisPort
    from mageflow.store.redis.scripts import Script, ScriptHeader
    from mageflow.store.redis.server import find_unsuitable, has_append_only_file, warn_unsuitable

__all__ = [
    "SHARDS",
    "UNDELIVERABLE",
    "Acknowledgement",
    "ActionEntry",
    "Admission",
    "AdmissionRequest",
    "AnySignature",
    "AttemptOutcome",
    "CallbackKind",
    "CancelEntry",
    "Census",
    "ClosedFlow",
    "DamageNote",
    "Decision",
    "DedupeKey",
    "Description",
    "FailedMember",
    "FailurePage",
    "FilledPlaces",
    "FlowPlace",
    "FoundCycle",
    "FoundSignature",
    "Inspection",
    "Keys",
    "LifecycleDecision",
    "LifecycleVerdict",
    "LockClaim",
    "LockHolding",
    "LockOwner",
    "LockReply",
    "LockSnapshot",
    "LockStore",
    "LockVerdict",
    "LockWait",
    "MemberDescription",
    "MemberEntry",
    "MemberPath",
    "OutboxEntry",
    "RecordKeys",
    "RedisClient",
    "RedisPort",
    "ReportEntry",
    "ReportedOutcome",
    "ResentRun",
    "Script",
    "ScriptHeader",
    "SettleVerdict",
    "Settlement",
    "SignatureCopies",
    "SilentRun",
    "StartDecision",
    "StartRequest",
    "StartVerdict",
    "Store",
    "StoredDefinition",
    "SwarmDecision",
    "SwarmVerdict",
    "VictimPolicy",
    "chain_header",
    "describe_record",
    "find_records",
    "find_unsuitable",
    "flow_of_run",
    "flow_run_id",
    "has_append_only_file",
    "join_member_key",
    "kinds_of",
    "list_damaged",
    "locate",
    "search_records",
    "signature_id_of",
    "split_member_key",
    "swarm_header",
    "task_header",
    "warn_unsuitable",
]

_HOMES = {
    "mageflow.store.keys": ("SHARDS", "Keys", "RecordKeys", "signature_id_of"),
    "mageflow.store.locks.records": (
        "FoundCycle",
        "LockClaim",
        "LockHolding",
        "LockOwner",
        "LockReply",
        "LockSnapshot",
        "LockVerdict",
        "LockWait",
        "VictimPolicy",
    ),
    "mageflow.store.locks.store": ("LockStore",),
    "mageflow.store.paths": (
        "UNDELIVERABLE",
        "CallbackKind",
        "DedupeKey",
        "FlowPlace",
        "MemberPath",
        "flow_of_run",
        "flow_run_id",
        "join_member_key",
        "split_member_key",
    ),
    "mageflow.store.records.admission": ("Admission", "AdmissionRequest", "locate"),
    "mageflow.store.records.census": ("Census",),
    "mageflow.store.records.copies": ("SignatureCopies",),
    "mageflow.store.records.damage": ("DamageNote", "list_damaged"),
    "mageflow.store.records.decisions": (
        "ClosedFlow",
        "Decision",
        "FilledPlaces",
        "Inspection",
        "LifecycleDecision",
        "LifecycleVerdict",
        "ResentRun",
        "Settlement",
        "SettleVerdict",
        "SilentRun",
        "StartDecision",
        "StartVerdict",
        "SwarmDecision",
        "SwarmVerdict",
    ),
    "mageflow.store.records.definitions": ("StoredDefinition",),
    "mageflow.store.records.description": ("Description", "MemberDescription", "describe_record", "find_records"),
    "mageflow.store.records.entries": (
        "Acknowledgement",
        "ActionEntry",
        "CancelEntry",
        "MemberEntry",
        "OutboxEntry",
        "ReportEntry",
    ),
    "mageflow.store.records.failures": ("FailedMember", "FailurePage"),
    "mageflow.store.records.lifecycle": ("StartRequest",),
    "mageflow.store.records.outcome": ("AttemptOutcome", "ReportedOutcome"),
    "mageflow.store.records.search": ("FoundSignature", "kinds_of", "search_records"),
    "mageflow.store.records.store": ("Store",),
    "mageflow.store.records.stored": ("chain_header", "swarm_header", "task_header"),
    "mageflow.store.records.views": ("AnySignature",),
    "mageflow.store.redis.port": ("RedisPort",),
    "mageflow.store.redis.scripts": ("Script", "ScriptHeader"),
    "mageflow.store.redis.server": ("find_unsuitable", "has_append_only_file", "warn_unsuitable"),
    "mageflow.store.redis.connections": ("RedisClient",),
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
