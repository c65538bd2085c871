"""Admission: which member a run belongs to, and whether it may execute."""

from typing import Literal

from mageflow._frozen import frozen
from mageflow.signatures import RunIdentity, TaskSignature
from mageflow.store.keys import RecordKeys
from mageflow.store.paths import DedupeKey, MemberPath
from mageflow.types import WorkflowPart

__all__ = ["Admission", "AdmissionRequest", "locate"]


@frozen
class AdmissionRequest:
    """A run that asks to execute its task function.

    Attributes:
        key: Key of the signature, as in the run's metadata (``mageflow_signature``).
        run: The run and the attempt.
        input_json: The run's input: the JSON text of an object. The input of a user's run is stored until the run ends,
            in case the run has to be sent again.
        options_json: What a user's run was given, for its callbacks (`RunOptions`). Of a step or an item the flow
            knows it.
        task_names: Names of the task that the run executes, as a user may have written them; empty compares none.
        workflow: Which part of a workflow of several tasks the run's task is; empty for a task on its own. Each task is
            admitted, the run is settled once.
        wants_signature: False to leave `Admission.signature` out, which takes a third of the call's CPU. Then damage
            in the state of the signature, which only the signature shows, is not found.
    """

    key: str
    run: RunIdentity
    input_json: str = ""
    options_json: str = ""
    task_names: tuple[str, ...] = ()
    workflow: WorkflowPart = ""
    wants_signature: bool = True


@frozen
class Admission:
    """Whether a run may execute its body.

    Attributes:
        verdict: ``run``: it owns the member now. ``replay``: the member had succeeded; hand out `result_json`.
            ``ended``: an earlier attempt of this run, `ended_attempt`, has ended the member as `status`; whether it
            goes on depends on what gave the run another attempt (`Admissions.admit` asks Hatchet). ``skip``: turn the
            run away visibly; `status` says why (a status, ``duplicate`` when another run owns the member,
            ``superseded`` when a newer dispatch or attempt does). ``twice``: as ``skip``, but the run has the metadata
            of `owner_run_id`: a copy, or Hatchet has made two runs of one call (`Admissions.admit` finds it).
            ``foreign``: the run's metadata was copied from another run, or it executes another task than the member:
            it is a plain run. ``over``: the member is a workflow that has ended as `status`, and this is a task of it:
            it runs, and its end is of no interest.
        status: The record's status, or the reason.
        signature: Set when the verdict is ``run`` and the caller wants it.
        result_json: Set when the verdict is ``replay``.
        flow_kind: ``chain`` or ``swarm`` for a step or an item (not for callbacks), else empty.
        flow_id: Id of the flow, as in telemetry.
        flow_name: Name of the flow.
        step: Number of the step or item, from 0.
        steps: How many there are.
        handover_seconds: From the end of what came before to now, by the clock of Redis: the step before, the item
            whose place in the swarm this one has, or for a first step of a nested flow what came before the flow. None
            where nothing came before, and for a later attempt.
        failed_attempts: How many earlier attempts of this run reported a failure. An attempt that is missing in this
            number was lost with its worker, and Hatchet does not count it against the task's retries.
        ended_attempt: The attempt that ended the member; 0 when it never began.
        owner_run_id: Of a run that is turned away because another one owns the member, or has ended it: that run.
        traceparent: The context a flow's runs belong under.
        goes_on: Another task of the same workflow was admitted before.
    """

    verdict: Literal["run", "replay", "skip", "twice", "ended", "foreign", "over"]
    status: str = ""
    signature: TaskSignature | None = None
    result_json: str | None = None
    flow_kind: Literal["", "chain", "swarm"] = ""
    flow_id: str = ""
    flow_name: str = ""
    step: int = 0
    steps: int = 0
    handover_seconds: float | None = None
    failed_attempts: int = 0
    ended_attempt: int = 0
    owner_run_id: str = ""
    traceparent: str = ""
    goes_on: bool = False


def locate(keys: RecordKeys, run: RunIdentity) -> tuple[MemberPath, int | None]:
    """Path and dispatch number of the member a run belongs to; the number is None when the run does not carry one.

    A run of a signature that carries no dedupe key of ours stands for itself: its member is named by the run.
    """
    try:
        dispatch = DedupeKey.parse(run.dedupe_key)
    except ValueError:
        dispatch = None
    if dispatch is not None and dispatch.record != keys.record:
        dispatch = None
    if keys.kind != "task" or not keys.member.is_record:
        is_this = dispatch is not None and dispatch.path == keys.member
        return keys.member, dispatch.epoch if dispatch is not None and is_this else None
    if dispatch is not None and dispatch.path.is_user_run:
        return dispatch.path, dispatch.epoch
    return MemberPath.user_run(run.dedupe_key or run.workflow_run_id), None
