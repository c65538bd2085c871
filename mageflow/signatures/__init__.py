"""Signatures: model, legal transitions, message rules and the stored form. Pure; no I/O."""

from mageflow.signatures.codec import (
    FlowDefinition,
    FlowMember,
    MemberDefinition,
    TaskDefinition,
    decode_definition,
    decode_member,
    encode,
)
from mageflow.signatures.merge import as_json_object, deep_merge, explicitly_set
from mageflow.signatures.message import (
    ERROR_FIELD,
    RESULT_FIELD,
    FailureRecord,
    ReturnValue,
    TaskError,
    error_field,
    result_field,
)
from mageflow.signatures.model import (
    ChainSignature,
    HistoryEntry,
    LastRun,
    RunIdentity,
    Signature,
    SwarmConfig,
    SwarmSignature,
    TaskSignature,
)
from mageflow.signatures.ports import SignatureLifecycle, SignatureRunner, SwarmOperations
from mageflow.signatures.states import ENDED, TRANSITIONS, Status, Verb, after, lua_table

__all__ = [
    "ENDED",
    "ERROR_FIELD",
    "RESULT_FIELD",
    "TRANSITIONS",
    "ChainSignature",
    "FailureRecord",
    "FlowDefinition",
    "FlowMember",
    "HistoryEntry",
    "LastRun",
    "MemberDefinition",
    "ReturnValue",
    "RunIdentity",
    "Signature",
    "SignatureLifecycle",
    "SignatureRunner",
    "Status",
    "SwarmConfig",
    "SwarmOperations",
    "SwarmSignature",
    "TaskDefinition",
    "TaskError",
    "TaskSignature",
    "Verb",
    "after",
    "as_json_object",
    "decode_definition",
    "decode_member",
    "deep_merge",
    "encode",
    "error_field",
    "explicitly_set",
    "lua_table",
    "result_field",
]
