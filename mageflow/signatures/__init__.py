"""Signatures: values, lifecycle table, message rules and stored form. Pure, no I/O."""

from mageflow.signatures.chain import ChainSignature
from mageflow.signatures.codec import (
    FORMAT_VERSION,
    FlowDefinition,
    FlowMember,
    MemberDefinition,
    TaskDefinition,
    decode_definition,
    decode_member,
    defined,
    encode,
)
from mageflow.signatures.merge import deep_merge
from mageflow.signatures.message import (
    ERROR_FIELD,
    RESULT_FIELD,
    FailureRecord,
    ReturnValue,
    TaskError,
    error_field,
    pack_result,
    result_field,
    unpack_result,
)
from mageflow.signatures.options import RunOptions
from mageflow.signatures.ports import FailedItem, SignatureLifecycle, SwarmOperations
from mageflow.signatures.runs import HistoryEntry, LastRun, RunIdentity
from mageflow.signatures.sent import SentMessage, as_json_object, input_key, other_keys, with_input_keys
from mageflow.signatures.signature import Signature, SignatureRunner
from mageflow.signatures.states import ENDED, TRANSITIONS, LifecycleAction, Status, Transition, after, lua_table
from mageflow.signatures.swarm import SwarmConfig, SwarmSignature
from mageflow.signatures.task import TaskSignature

__all__ = [
    "ENDED",
    "ERROR_FIELD",
    "FORMAT_VERSION",
    "RESULT_FIELD",
    "TRANSITIONS",
    "ChainSignature",
    "FailedItem",
    "FailureRecord",
    "FlowDefinition",
    "FlowMember",
    "HistoryEntry",
    "LastRun",
    "LifecycleAction",
    "MemberDefinition",
    "ReturnValue",
    "RunIdentity",
    "RunOptions",
    "SentMessage",
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
    "Transition",
    "after",
    "as_json_object",
    "decode_definition",
    "decode_member",
    "deep_merge",
    "defined",
    "encode",
    "error_field",
    "input_key",
    "lua_table",
    "other_keys",
    "pack_result",
    "result_field",
    "unpack_result",
    "with_input_keys",
]
