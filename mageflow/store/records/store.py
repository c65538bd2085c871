"""The operations over records: each one script, one round trip, safe to repeat.

Which operations a run makes: `admit` before its body, `settle` after it. A plain run makes none.
"""

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from mageflow.config import Settings
from mageflow.error_text import clipped
from mageflow.errors import IllegalTransitionError, SignatureInvalidError, SignatureNotFoundError, StoreError
from mageflow.interceptors import DamageFound, Interceptor, SignatureLoad, SignatureWrite
from mageflow.signatures import (
    ChainSignature,
    FailureRecord,
    LifecycleAction,
    RunIdentity,
    Status,
    SwarmSignature,
    TaskSignature,
)
from mageflow.store.keys import SHARDS, Keys, RecordKeys
from mageflow.store.paths import MemberPath
from mageflow.store.records import declarations as scripts
from mageflow.store.records.admission import Admission, locate
from mageflow.store.records.calls import as_damage, call_record_script, script_config
from mageflow.store.records.census import Census, read_census
from mageflow.store.records.damage import read_notes
from mageflow.store.records.decisions import (
    Inspection,
    LifecycleDecision,
    LifecycleVerdict,
    Settlement,
    StartDecision,
    SwarmDecision,
)
from mageflow.store.records.entries import Acknowledgement
from mageflow.store.records.outcome import AttemptOutcome
from mageflow.store.records.stored import StoredHeader
from mageflow.store.records.views import guarded, member_view, record_view
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script
from mageflow.types import SignatureKind

__all__ = ["Census", "Store"]

AnySignature = TaskSignature | ChainSignature | SwarmSignature


class Store:
    """Signatures, chains and swarms in Redis.

    Every method is one round trip and raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` as
    `RedisPort.call` does, and `SignatureVersionError` for a record that another release has stored. Every script is
    idempotent, so an operation whose answer was lost may be repeated.

    Args:
        port: Connects to Redis.
        keys: Names of everything.
        settings: TTLs and intervals.
        interceptor: Observes loads and writes of signatures.
    """

    def __init__(self, port: RedisPort, keys: Keys, settings: Settings, interceptor: Interceptor | None = None) -> None:
        self.port = port
        self.keys = keys
        self.settings = settings
        self._interceptor = interceptor or Interceptor()
        self._configs: dict[SignatureKind, str] = {
            "task": script_config(settings, "task"),
            "chain": script_config(settings, "chain"),
            "swarm": script_config(settings, "swarm"),
        }

    async def create(
        self, keys: RecordKeys, documents: Sequence[str], header: Mapping[str, str], *, by: str = ""
    ) -> tuple[bool, Status]:
        """Store a record with all its members, unless it is stored already.

        Args:
            keys: Where.
            documents: Definition path and stored definition (`StoredDefinition`), in turn.
            header: Its other header fields, see `mageflow.store.records.stored`.
            by: Who creates it, for the history.

        Returns:
            Whether it was stored now, and its status.
        """
        size = sum(map(len, documents))
        call = SignatureWrite(keys.kind, "create", keys.id, size)
        with self._interceptor.write_signature(call):
            created, status = await self._call(scripts.CREATE, keys, keys.kind, json.dumps(header), by, *documents)
        return bool(created), guarded(keys.record, lambda: Status(status))

    async def load(self, key: str) -> AnySignature:
        """A signature, a flow or a member of one, as it is now.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        signature, _ = await self.load_with_result(key, wants_result=False)
        return signature

    async def load_with_result(self, key: str, *, wants_result: bool = True) -> tuple[AnySignature, str]:
        """Read a record or a member with its stored result, in one round trip.

        Args:
            key: Key of a record or a member.
            wants_result: Whether to read the result.

        Returns:
            The signature as it is now, and the result as JSON text; an empty text if there is none.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        keys = self.keys.parse(key)
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            reply = await self._call(scripts.LOAD, keys, str(keys.member), "1" if wants_result else "0")
            if reply is None:
                call.result = "missing"
                raise SignatureNotFoundError(key)
            flat, text, successes, errors, state, result = cast("list[Any]", reply)
            call.size_bytes = len(text)
            call.result = "invalid"
            header = StoredHeader.read(flat)
            if keys.member.is_record:
                signature: AnySignature = record_view(keys, header, text, successes, errors)
            else:
                signature = member_view(keys, keys.member, header, text, successes, errors, state)
            call.result = "hit"
            return signature, result

    async def admit(
        self,
        key: str,
        run: RunIdentity,
        *,
        input_json: str = "",
        is_replayed: bool = False,
        options_json: str = "",
        task_names: Sequence[str] = (),
        is_copied: bool = False,
    ) -> Admission:
        """Decide whether a run may execute its task function, and mark the signature active if so.

        Atomic, and safe to repeat with the same run, attempt and worker when an answer was lost. The rules, in order:

        - The key was written for another run, or the member is of another task than the run: ``foreign``; the run is a
          plain one.
        - The member succeeded: the same run gets the stored result (``replay``), another run is skipped.
        - A later attempt of the run that failed or was cancelled: ``ended``; with ``is_replayed`` it is admitted. Every
          other run of an ended member is skipped, and every run of an interrupted one.
        - A run of an earlier dispatch (before suspend and resume), or an earlier attempt: skipped as ``superseded``.
        - A second run of the same dispatch: skipped as ``duplicate``; the first to arrive owns the member.
        - The owner's next attempt, or the same attempt on another worker after reassignment: admitted.
        - Suspended: skipped, and held with its input until resume.

        Each run that a user starts from a plain signature is a member of its own and may run beside the others. A step,
        an item or a callback is one member, however many runs it has.

        Args:
            key: ``mageflow_signature`` of the run's metadata.
            run: Which run this is.
            input_json: The run's input. The input of a user's run is stored until the run ends, in case the run has to
                be sent again.
            is_replayed: True if Hatchet reports that a user replayed the run.
            options_json: What a user's run hands on to its callbacks (`RunOptions`).
            task_names: Names of the task that the run executes, as a user may have written them; empty compares none.
            is_copied: True if the key was written for another run. Then there is no round trip.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        keys = self.keys.parse(key)
        path, epoch = locate(keys, run)
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            if is_copied:
                call.result = "foreign"
                return Admission("foreign")
            reply = await self._call(
                scripts.ADMIT,
                keys,
                str(path),
                "" if epoch is None else epoch,
                run.workflow_run_id,
                run.task_run_id,
                run.worker_id,
                run.attempt_number,
                input_json if path.nonce is not None else "",
                run.traceparent,
                "1" if is_replayed else "",
                options_json if path.nonce is not None else "",
                _comparable(task_names, self.keys.namespace),
            )
            verdict, status, *rest = cast("list[Any]", reply)
            if verdict == "missing":
                call.result = "missing"
                raise SignatureNotFoundError(key)
            if verdict == "invalid":
                call.result = "invalid"
                raise SignatureInvalidError(key, status)
            if verdict == "foreign":
                call.result = "foreign"
                return Admission("foreign")
            call.result = "hit"
            if verdict == "replay":
                return Admission("replay", status="done", result_json=status)
            if verdict == "skip":
                return Admission("skip", status=status)
            if verdict == "ended":
                return Admission("ended", status=status, ended_attempt=int(rest[0]))
            flat, text, successes, errors, state, handover, failures = rest
            call.result, call.size_bytes = "invalid", len(text)
            header = StoredHeader.read(flat)
            signature = member_view(keys, path, header, text, successes, errors, state)
            call.result = "hit"
        step = path.index if path.is_step_or_item else None
        return Admission(
            "run",
            status=status,
            signature=signature,
            flow_kind=keys.kind if keys.kind != "task" and step is not None else "",
            flow_id=keys.id if keys.kind != "task" else "",
            flow_name=header.name,
            step=step or 0,
            steps=header.total,
            handover_seconds=handover / 1000 if handover >= 0 else None,
            failed_attempts=failures,
            traceparent=header.traceparent,
        )

    async def settle(
        self, key: str, run: RunIdentity, ended: AttemptOutcome, *, acknowledged: Sequence[Acknowledgement] = ()
    ) -> Settlement:
        """Record how an attempt ended, and decide what follows from it. One round trip, atomic, safe to repeat.

        Args:
            key: As for `admit`.
            run: As for `admit`; `RunIdentity.traceparent` is what the next step links to.
            ended: How the attempt ended.
            acknowledged: Sent entries of this record, as for `acknowledge`; saves its round trip.

        Raises:
            SignatureNotFoundError: The key is none of this client's.
        """
        keys = self.keys.parse(key)
        path, _ = locate(keys, run)
        without_result = "null" if ended.outcome == "succeeded" else ""
        call = SignatureWrite(keys.kind, "update", keys.id)
        with self._interceptor.write_signature(call):
            reply = await self._call(
                scripts.SETTLE,
                keys,
                str(path),
                run.workflow_run_id,
                0 if ended.reported_by_engine else run.attempt_number,
                ended.outcome,
                max(1, ended.max_failures) if ended.will_retry else 0,
                without_result if ended.result_json is None else ended.result_json,
                ended.error.model_dump_json() if ended.error else "",
                ended.input_json,
                run.traceparent,
                *[part for each in acknowledged for part in each],
            )
        return guarded(keys.record, lambda: Settlement.parse(keys, reply))

    async def start(
        self,
        key: str,
        message_json: str,
        *,
        message_set_json: str = "",
        parent_value_json: str = "",
        traceparent: str = "",
        parent: str = "",
        by: str = "",
        options_json: str = "",
    ) -> StartDecision:
        """Begin a flow, once.

        Args:
            key: Of the flow.
            message_json: The whole message it is started with: the JSON text of an object.
            message_set_json: The part of it that the caller set; empty where this is the whole.
            parent_value_json: For a nested flow what its parent hands to it: ``{"result": …}`` or ``{"error": …}``.
            traceparent: The context that the flow's runs belong under.
            parent: Key of the parent's member that the flow stands for; empty when it has no parent.
            by: Who starts it, for the history.
            options_json: What every run of the flow is given (`RunOptions`).
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            reply = await self._call(
                scripts.START,
                keys,
                message_json,
                message_set_json,
                parent_value_json,
                traceparent,
                parent,
                by,
                options_json,
            )
        return guarded(keys.record, lambda: StartDecision.parse(keys, reply))

    async def apply_lifecycle(
        self,
        key: str,
        action: LifecycleAction,
        *,
        by: str = "",
        why: str = "",
        error: FailureRecord | None = None,
    ) -> LifecycleDecision:
        """Suspend, resume or interrupt a record or a member of one. Applying an action again changes nothing.

        Args:
            key: Of the record, or of a member of one.
            action: What to do.
            by: Who does it, for the history.
            why: The reason, for the history.
            error: For ``interrupt``: the error that error callbacks receive.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: The lifecycle does not allow it; nothing was changed.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            text = error.model_dump_json() if error else ""
            reply = await self._call(scripts.LIFECYCLE, keys, str(keys.member), action, by, why, text)
        decision = guarded(keys.record, lambda: LifecycleDecision.parse(keys, reply))
        if decision is None:
            raise SignatureNotFoundError(key)
        if decision.verdict is LifecycleVerdict.ILLEGAL:
            raise IllegalTransitionError(key, decision.status, action)
        return decision

    async def remove(self, key: str) -> list[str] | None:
        """Delete a record with everything stored for it.

        Returns:
            Ids of the runs that were live, or None when there was nothing to delete.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "delete", keys.id)):
            return cast("list[str] | None", await self._call(scripts.REMOVE, keys))

    async def extend_swarm(
        self,
        key: str,
        documents: Sequence[str] = (),
        *,
        close: Literal["no", "now", "when_full"] = "no",
        token: str = "",
    ) -> SwarmDecision:
        """Add items to a swarm, close it, or do both. With neither, fill the places that have waited long enough.

        Args:
            key: Of the swarm.
            documents: Offset from the first new item (with a callback path behind it for a callback) and stored
                definition, in turn.
            close: Whether the swarm accepts no more items afterwards; ``when_full``: if it holds as many as it may.
            token: Names this addition: the same token adds once, however often the call is repeated.
        """
        keys = self.keys.parse(key)
        operation: Literal["update", "touch"] = "update" if documents else "touch"
        with self._interceptor.write_signature(SignatureWrite(keys.kind, operation, keys.id, sum(map(len, documents)))):
            reply = await self._call(scripts.SWARM, keys, close, token, *documents)
        return guarded(keys.record, lambda: SwarmDecision.parse(keys, reply))

    async def definitions(self, key: str) -> dict[str, str]:
        """The stored definitions (`StoredDefinition`) of a record, by definition path.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
        """
        keys = self.keys.parse(key)
        try:
            found = await self.port.command("HGETALL", keys.definitions, operation="definitions")
        except StoreError as error:
            raise as_damage(keys, error) from error
        if not found:
            raise SignatureNotFoundError(key)
        if isinstance(found, dict):
            return cast("dict[str, str]", found)
        return dict(zip(found[::2], found[1::2], strict=True))

    async def acknowledge(self, keys: RecordKeys, sent: Sequence[Acknowledgement]) -> None:
        """Remove entries from an outbox because they were sent, and store the run ids they led to.

        Args:
            keys: The record.
            sent: The entries; one that was admitted, or decided anew, in the meantime is left as it is.
        """
        await self._call(scripts.ACK, keys, *[part for each in sent for part in each])

    async def keep_alive(self, keys: RecordKeys, running: Sequence[tuple[MemberPath, str]] = ()) -> None:
        """Refresh the TTLs of a record whose runs are still going.

        Args:
            keys: Which record.
            running: Path and run id of the members whose task functions run in this process. They are not sent again,
                even if Hatchet does not know their runs.
        """
        await self._call(scripts.ALIVE, keys, *[text for path, run_id in running for text in (str(path), run_id)])

    async def due(self, limit: int, lease_seconds: float) -> list[str]:
        """Take the keys of records that a reconciler has to look at. One round trip; one per shard on a Cluster.

        Args:
            limit: How many records at most; on a Cluster per shard.
            lease_seconds: For how long no other reconciler takes them.

        Telemetry: the event ``mageflow.store.damaged`` and ``mageflow_store_damaged_total`` for what scripts have found
        damaged since the last call.
        """
        lease = round(lease_seconds * 1000)
        indexes = [self.keys.due(shard) for shard in range(SHARDS)]
        found: list[str] = []
        for group in [[each] for each in indexes] if self.port.is_cluster else [indexes]:
            keys, untold = await self.port.call(scripts.DUE, group, (limit, lease))
            found += keys
            for each in read_notes(untold):
                self._interceptor.event(each.event())
        return found

    async def put_aside(self, key: str, reason: str) -> None:
        """Let no reconciler visit a record that cannot be read, and note it for an operator. One round trip.

        A write to the record, or `clear_damaged`, lets reconcilers visit it again. Telemetry: the event
        ``mageflow.store.damaged`` and ``mageflow_store_damaged_total``, once until the note is cleared.

        Args:
            key: An entry of the index of due records.
            reason: What cannot be read.
        """
        try:
            keys = self.keys.parse(key)
        except SignatureNotFoundError:
            return  # the script that reads the index removes what is no key
        reason = clipped(reason, 1000)
        if await self.port.call(scripts.PUT_ASIDE, [keys.due], (key, "record", reason)):
            self._interceptor.event(DamageFound("record", key, reason))

    async def inspect(self, key: str, *, lease_seconds: float, limit: int = 200) -> Inspection:
        """Find the entries of an outbox that were never sent, and the runs that have been silent for the check time.

        Args:
            key: Of the record.
            lease_seconds: For how long the found entries belong to the caller.
            limit: How many entries and how many runs, at most.
        """
        keys = self.keys.parse(key)
        reply = await self._call(scripts.INSPECT, keys, round(lease_seconds * 1000), limit)
        return guarded(keys.record, lambda: Inspection.parse(keys, reply))

    async def lead(self, owner: str, lease_seconds: float) -> float:
        """Take or keep the leader's lease of the namespace.

        Args:
            owner: Names this process.
            lease_seconds: How long the lease lasts from now.

        Returns:
            0.0 if ``owner`` leads now; else the remaining seconds of the current leader's lease.
        """
        lease = self.keys.tagged("leader", "leader")
        return await self.port.call(scripts.LEAD, [lease], (owner, max(1, round(lease_seconds * 1000)))) / 1000

    async def resign(self, owner: str) -> None:
        """Give the leader's lease back, if ``owner`` has it."""
        await self.port.call(scripts.LEAD, [self.keys.tagged("leader", "leader")], (owner, 0))

    async def census(self) -> Census:
        """Counts of everything stored, for the cluster view. One round trip; one per shard on a Cluster."""
        return await read_census(self.port, self.keys)

    async def _call(self, script: Script, keys: RecordKeys, *args: str | float) -> Any:
        return await call_record_script(self.port, script, keys, self._configs[keys.kind], *args)


def _comparable(task_names: Sequence[str], namespace: str) -> str:
    """The names with and without the namespace, as ``admit.lua`` compares them: in lower case, as in Hatchet."""
    if not task_names:
        return ""
    names = {form for each in task_names for form in (each, each.removeprefix(namespace), f"{namespace}{each}")}
    return "\n" + "\n".join(sorted(name.translate(_LOWER) for name in names)) + "\n"


_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
