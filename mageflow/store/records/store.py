"""The operations over records: each one script, one round trip, safe to repeat.

Which operations a run makes: `admit` before its body, `settle` after it. A plain run makes none.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from mageflow.config import Settings
from mageflow.errors import IllegalTransitionError, SignatureInvalidError, SignatureNotFoundError
from mageflow.interceptors import Interceptor, SignatureLoad, SignatureWrite
from mageflow.signatures import (
    ChainSignature,
    FailureRecord,
    RunIdentity,
    Status,
    SwarmSignature,
    TaskSignature,
)
from mageflow.store.keys import SHARDS, Keys, RecordKeys
from mageflow.store.records import declarations as scripts
from mageflow.store.records.decisions import Admission, Decision, locate
from mageflow.store.records.views import header_of, member_view, record_view
from mageflow.store.redis.port import RedisPort
from mageflow.store.redis.scripts import Script
from mageflow.types import SignatureKind

__all__ = ["Census", "Store"]

AnySignature = TaskSignature | ChainSignature | SwarmSignature

Census = dict[str, dict[str, float]]
"""``signatures`` by ``<kind>:<status>``; ``active`` and ``oldest_seconds`` by flow kind; ``items`` by state."""


class Store:
    """Signatures, chains and swarms in Redis.

    Every method is one round trip and raises `RedisNotConfiguredError`, `StoreUnavailableError` or `StoreError` as
    `RedisPort.call` does. Every script is idempotent, so an operation whose answer was lost may simply be repeated.

    Args:
        port: The way to Redis.
        keys: Names of everything.
        settings: TTLs and intervals.
        interceptor: Told of loads and writes of signatures.
    """

    def __init__(self, port: RedisPort, keys: Keys, settings: Settings, interceptor: Interceptor | None = None) -> None:
        self.port = port
        self.keys = keys
        self.settings = settings
        self._interceptor = interceptor or Interceptor()
        self._configs: dict[SignatureKind, str] = {
            "task": _config(settings, "task"),
            "chain": _config(settings, "chain"),
            "swarm": _config(settings, "swarm"),
        }

    async def create(
        self, keys: RecordKeys, documents: Sequence[str], header: Mapping[str, str], *, by: str = ""
    ) -> tuple[bool, Status]:
        """Store a record with all its members, unless it is stored already.

        Args:
            keys: Where.
            documents: Path, definition, path, definition, … with `member_document` definitions.
            header: Further header fields.
            by: Who creates it, for the history.

        Returns:
            Whether it was stored now, and its status.
        """
        size = sum(map(len, documents))
        call = SignatureWrite(keys.kind, "create", keys.id, size)
        with self._interceptor.write_signature(call):
            created, status = await self._call(scripts.CREATE, keys, keys.kind, json.dumps(header), by, *documents)
        return bool(created), Status(status)

    async def load(self, key: str) -> AnySignature:
        """A signature, a flow or a member of one, as it is now.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        signature, _ = await self.load_with_result(key, wants_result=False)
        return signature

    async def load_with_result(self, key: str, *, wants_result: bool = True) -> tuple[AnySignature, str]:
        """As `load`, with the stored result as JSON text (empty when there is none)."""
        keys = self.keys.parse(key)
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            reply = await self._call(scripts.LOAD, keys, keys.path, "1" if wants_result else "0")
            if reply is None:
                call.result = "missing"
                raise SignatureNotFoundError(key)
            flat, text, successes, errors, state, result = cast("list[Any]", reply)
            call.size_bytes = len(text)
            call.result = "invalid"
            header = header_of(flat)
            if keys.path:
                signature: AnySignature = member_view(keys, keys.path, header, text, successes, errors, state)
            else:
                signature = record_view(keys, header, text, successes, errors)
            call.result = "hit"
            return signature, result

    async def admit(
        self, key: str, run: RunIdentity, *, message_json: str = "", is_replayed: bool = False
    ) -> Admission:
        """Decide whether a run may execute its body, and mark the signature active if so: load and write in one.

        Idempotent per (run, attempt, worker): an answer that got lost may be asked for again. The rules, in order:

        - a member that succeeded: the same run gets the stored result (``replay``), another run is turned away;
        - a later attempt of the very run that failed or was cancelled: ``ended``, and if it was replayed in Hatchet it
          goes on, see `mageflow.flows.Flows.admit`; anybody else is turned away, and everybody from what was
          interrupted;
        - a run of an earlier dispatch (before suspend and resume), or an earlier attempt: ``superseded``;
        - a second run of the same dispatch: ``duplicate``; the first to arrive owns the member;
        - the owner's next attempt, or the same attempt on another worker after reassignment: goes on;
        - suspended: turned away, and remembered with its message until resume.

        Each run a user makes of a plain signature is a member of its own and may go on beside the others; a step, an
        item or a callback is one member for good.

        Args:
            key: ``mageflow_signature`` of the run's metadata.
            run: Which run this is.
            message_json: The run's input; a user's own run of a signature has it kept until it has ended, in case the
                run has to be sent again.
            is_replayed: Hatchet says that somebody has replayed the run.

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
            SignatureInvalidError: What is stored does not validate.
        """
        keys = self.keys.parse(key)
        path, epoch = locate(keys, run)
        call = SignatureLoad(keys.kind, keys.id)
        with self._interceptor.load_signature(call):
            reply = await self._call(
                scripts.ADMIT,
                keys,
                path,
                epoch,
                run.workflow_run_id,
                run.task_run_id,
                run.worker_id,
                run.attempt_number,
                message_json if path.startswith("@") else "",
                run.traceparent,
                "1" if is_replayed else "",
            )
            verdict, status, *rest = cast("list[Any]", reply)
            if verdict == "missing":
                call.result = "missing"
                raise SignatureNotFoundError(key)
            if verdict == "invalid":
                call.result = "invalid"
                raise SignatureInvalidError(key, status)
            call.result = "hit"
            if verdict == "replay":
                return Admission("replay", status="done", result_json=status)
            if verdict == "skip":
                return Admission("skip", status=status)
            if verdict == "ended":
                return Admission("ended", status=status, ended_attempt=int(rest[0]))
            flat, text, successes, errors, state, handover, failures = rest
            call.result, call.size_bytes = "invalid", len(text)
            header = header_of(flat)
            signature = member_view(keys, path, header, text, successes, errors, state)
            call.result = "hit"
        flow_kind = keys.kind if keys.kind != "task" and path.isdigit() else ""
        return Admission(
            "run",
            status=status,
            signature=signature,
            flow_kind=flow_kind,
            flow_id=keys.id if keys.kind != "task" else "",
            flow_name=header.get("name", ""),
            step=int(path) if flow_kind else 0,
            steps=int(header.get("total", 0)),
            handover_seconds=handover / 1000 if handover >= 0 else None,
            failed_attempts=failures,
            traceparent=header.get("trace", ""),
        )

    async def settle(
        self,
        key: str,
        run: RunIdentity,
        outcome: Literal["succeeded", "failed", "timed_out", "cancelled", "retried", "lost", "unscheduled"],
        *,
        result_json: str | None = None,
        error: FailureRecord | None = None,
        will_retry: bool = False,
        max_failures: int = 0,
        message_json: str = "",
        reported_by_engine: bool = False,
        acknowledged: Sequence[tuple[str, int, str]] = (),
    ) -> Decision:
        """Record how an attempt ended, and decide what follows from it. See `mageflow.flows.Flows.settle`.

        Args:
            key: As for `admit`.
            run: As for `admit`.
            outcome: How it ended. ``lost`` when Hatchet does not know the run, ``unscheduled`` when it cancelled it
                because no worker took it within its schedule timeout: then it is sent again (see
                `mageflow.flows.Reconciler` for how often), and has failed when it is not.
            result_json: For ``succeeded``.
            error: For everything else.
            will_retry: Whether the engine is expected to try again: then nothing follows yet.
            max_failures: With how many failed attempts the engine gives up whatever ``will_retry`` says; 0 if unknown.
            message_json: The input that failed; kept for error callbacks.
            reported_by_engine: Hatchet said so, not the run itself: any attempt of this run is meant.
            acknowledged: What `acknowledge` would be told of this record; saves its round trip.
        """
        keys = self.keys.parse(key)
        path, _ = locate(keys, run)
        call = SignatureWrite(keys.kind, "update", keys.id)
        with self._interceptor.write_signature(call):
            reply = await self._call(
                scripts.SETTLE,
                keys,
                path,
                run.workflow_run_id,
                0 if reported_by_engine else run.attempt_number,
                outcome,
                max(1, max_failures) if will_retry else 0,
                "null" if result_json is None and outcome == "succeeded" else result_json or "",
                error.model_dump_json() if error else "",
                message_json,
                run.traceparent,
                *[part for each in acknowledged for part in each],
            )
        return Decision.parse(keys, reply)

    async def start(
        self,
        key: str,
        message_json: str,
        *,
        carry_json: str = "",
        traceparent: str = "",
        parent: str = "",
        by: str = "",
    ) -> Decision:
        """Begin a flow, once. Verdicts: ``started``, ``held``, ``repeated``, ``owned``, ``gone``."""
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            reply = await self._call(scripts.START, keys, message_json, carry_json, traceparent, parent, by)
        return Decision.parse(keys, reply)

    async def obey(
        self,
        key: str,
        verb: Literal["suspend", "resume", "interrupt"],
        *,
        by: str = "",
        why: str = "",
        error: FailureRecord | None = None,
    ) -> Decision:
        """Carry out a lifecycle verb on a record or a member; twice is once. The verdict is the status reached.

        Raises:
            SignatureNotFoundError: It expired or was removed.
            IllegalTransitionError: The lifecycle does not allow it; nothing was changed.
        """
        keys = self.keys.parse(key)
        with self._interceptor.write_signature(SignatureWrite(keys.kind, "update", keys.id)):
            text = error.model_dump_json() if error else ""
            reply = await self._call(scripts.VERB, keys, keys.path, verb, by, why, text)
        decision = Decision.parse(keys, reply)
        if decision.verdict == "gone":
            raise SignatureNotFoundError(key)
        if decision.verdict.startswith("illegal:"):
            raise IllegalTransitionError(key, decision.verdict.partition(":")[2], verb)
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
        self, key: str, documents: Sequence[str] = (), *, close: Literal["", "1", "full"] = "", token: str = ""
    ) -> Decision:
        """Add items to a swarm and / or close it, or (with neither) fill the places that have been free for long.

        The same ``token`` adds once, however often it is asked.
        """
        keys = self.keys.parse(key)
        operation: Literal["update", "touch"] = "update" if documents else "touch"
        with self._interceptor.write_signature(SignatureWrite(keys.kind, operation, keys.id, sum(map(len, documents)))):
            reply = await self._call(scripts.SWARM, keys, close, token, *documents)
        return Decision.parse(keys, reply)

    async def definitions(self, key: str) -> dict[str, str]:
        """The stored definitions of a record by path, each with its head (see `member_document`).

        Raises:
            SignatureNotFoundError: It expired, was removed, or never was.
        """
        keys = self.keys.parse(key)
        found = await self.port.command("HGETALL", keys.defs, operation="definitions")
        if not found:
            raise SignatureNotFoundError(key)
        return cast("dict[str, str]", found if isinstance(found, dict) else header_of(found))

    async def acknowledge(self, keys: RecordKeys, sent: Sequence[tuple[str, int, str]]) -> None:
        """Note that entries of an outbox were sent: path, epoch and run id of each."""
        await self._call(scripts.ACK, keys, *[part for each in sent for part in each])

    async def keep_alive(self, keys: RecordKeys, bodies: Sequence[tuple[str, str]] = ()) -> None:
        """Refresh the TTLs of a record whose runs are still going.

        Args:
            keys: Which record.
            bodies: Path and run id of the members whose bodies run in this very process: they are not sent again,
                even if Hatchet does not know their runs.
        """
        await self._call(scripts.ALIVE, keys, *[part for each in bodies for part in each])

    async def due(self, limit: int, lease_seconds: float) -> list[str]:
        """Take records a reconciler should look at. One round trip; one per shard on a Cluster."""
        lease = round(lease_seconds * 1000)
        indexes = [self.keys.due(shard) for shard in range(SHARDS)]
        if not self.port.is_cluster:
            return cast("list[str]", await self.port.call(scripts.DUE, indexes, (limit, lease)))
        return [key for index in indexes for key in await self.port.call(scripts.DUE, [index], (limit, lease))]

    async def inspect(self, key: str, *, lease_seconds: float, limit: int = 200) -> Decision:
        """What of a record was never sent (claimed for the caller) and whose runs have been silent for long."""
        keys = self.keys.parse(key)
        return Decision.parse(keys, await self._call(scripts.INSPECT, keys, round(lease_seconds * 1000), limit))

    async def lead(self, owner: str, lease_seconds: float) -> float:
        """Take or keep the leader's lease of the namespace.

        Returns:
            0.0 when ``owner`` leads now; else for how many seconds the lease of whoever leads still runs.
        """
        lease = self.keys.tagged("leader", "leader")
        return await self.port.call(scripts.LEAD, [lease], (owner, max(1, round(lease_seconds * 1000)))) / 1000

    async def resign(self, owner: str) -> None:
        """Give the leader's lease back, if ``owner`` has it."""
        await self.port.call(scripts.LEAD, [self.keys.tagged("leader", "leader")], (owner, 0))

    async def census(self) -> Census:
        """Counts of everything stored, for the cluster view. One round trip; one per shard on a Cluster."""
        kinds: tuple[SignatureKind, ...] = ("task", "chain", "swarm")
        pairs = [f"{kind}:{status}" for kind in kinds for status in Status]
        shards = [self.keys.stats(shard) for shard in range(SHARDS)]
        groups = [[each] for each in shards] if self.port.is_cluster else [shards]
        signatures = dict.fromkeys(pairs, 0.0)
        active, oldest = {"chain": 0.0, "swarm": 0.0}, {"chain": 0.0, "swarm": 0.0}
        items: dict[str, float] = {"pending": 0.0, "running": 0.0, "done": 0.0, "failed": 0.0}
        for group in groups:
            counts, chains, swarms, states = await self.port.call(scripts.CENSUS, group, pairs)
            for pair, count in zip(pairs, counts, strict=True):
                signatures[pair] += count
            for kind, (count, age) in (("chain", chains), ("swarm", swarms)):
                active[kind] += count
                oldest[kind] = max(oldest[kind], age / 1000)
            for state, count in zip(items, states, strict=True):
                items[state] += count
        return {"signatures": signatures, "active": active, "oldest_seconds": oldest, "items": items}

    async def _call(self, script: Script, keys: RecordKeys, *args: str | float) -> Any:
        return await self.port.call(script, keys.all(), (self._configs[keys.kind], *args))


def _config(settings: Settings, kind: SignatureKind) -> str:
    active, done = settings.ttl_seconds(kind)
    # What lives for less than the intervals is looked at in time to keep it alive.
    grace = round(min(settings.reconcile_grace_seconds, active / 3) * 1000)
    check = round(min(settings.reconcile_check_seconds, active / 3) * 1000)
    return json.dumps({"active": active, "done": done, "grace": grace, "check": check})
