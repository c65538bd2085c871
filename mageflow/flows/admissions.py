"""Admission of runs: whether a run may execute its task function, and what of the record it is handed."""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Final

from mageflow.errors import DispatchError
from mageflow.flows.acknowledgements import Acknowledgements
from mageflow.flows.creation import SignatureBinder
from mageflow.flows.heartbeats import Heartbeats
from mageflow.flows.repetition import up_to_date, while_unavailable
from mageflow.interceptors import FlowStep, Interceptor
from mageflow.signatures import RunIdentity
from mageflow.store import Admission, AdmissionRequest, Store, locate
from mageflow.types import Dispatcher

__all__ = ["Admissions"]

_log = logging.getLogger("mageflow.flows")

_SENT_AGAIN_SECONDS: Final = 120.0
"""How long after the first one Hatchet may make a run of a call that the SDK repeats; it does so for seconds."""

_OF_ANOTHER_RUN: Final = frozenset({"duplicate", "done", "failed", "cancelled"})
"""Why a run is turned away whose step another run owns, or has ended."""


class Admissions:
    """Admits runs.

    Args:
        store: Decides.
        dispatcher: Knows which runs were replayed, and when a run was made.
        acknowledgements: Forgets entries of runs that were admitted.
        heartbeats: Begin with the admission.
        binder: Makes signatures runnable.
        interceptor: Sees the steps of flows.
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        acknowledgements: Acknowledgements,
        heartbeats: Heartbeats,
        binder: SignatureBinder,
        interceptor: Interceptor,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._acknowledgements = acknowledgements
        self._heartbeats = heartbeats
        self._binder = binder
        self._interceptor = interceptor

    async def admit(self, request: AdmissionRequest, *, retry_seconds: float = 0.0) -> Admission:
        """Decide whether a run may execute its task function, and mark the signature active if it may.

        One round trip to Redis, atomic, and safe to repeat: the same attempt on the same worker gets the same answer.
        One more if the first took over 3 s: the process may have stood still, and another worker may have the run.
        Refreshes the TTLs of the record.

        A run that failed or was cancelled, and then got another attempt, is either replayed in Hatchet (dashboard,
        ``client.runs.replay``) or was lost with its worker. Hatchet knows which, and is asked. A lost one is turned
        away. A replayed one is admitted, with all its retries:

        - a task signature or a callback runs again;
        - the step that ended its chain runs again, and the chain is active again. If the step succeeds, the chain
          continues from there, and so does the flow the chain is nested in;
        - an item of an active or failed swarm takes its place again. A failed swarm continues with it and with the
          items it had not started. Items that ``stop_after_n_failures`` cancelled stay cancelled;
        - an item of a swarm that is done is turned away: the results were already handed on.

        Each callback still runs once: error callbacks that ran for the first failure do not run for the next. A flow
        that continues ends a second time, in its history and in telemetry. While the flow is suspended a replayed run
        is turned away, and its step is sent again at resume. A replay of a run that succeeded gets the stored result.
        A replay of what was interrupted, or has expired, is turned away.

        Telemetry: a span ``load signature`` and ``mageflow_signature_loads_total``; for a step or an item also
        ``mageflow_flow_handover_seconds`` and the event ``mageflow.flow.step_done``.

        Args:
            request: The run, and what it brings with it.
            retry_seconds: How long to retry while Redis is away or refuses, so that this does not cost a run one of
                its retries.

        Returns:
            What to do with the run; see `Admission.verdict`.

        Raises:
            SignatureNotFoundError: The record expired, was removed, or never existed.
            SignatureInvalidError: The stored document does not validate.
            StoreUnavailableError: Redis stayed unavailable for ``retry_seconds``.
            DispatchError: Hatchet did not say whether the run was replayed.
        """
        run = request.run
        admission = await up_to_date(partial(self._store.admit, request), retry_seconds)
        if admission.verdict == "ended":
            if not await self._dispatcher.was_replayed(run.workflow_run_id, admission.ended_attempt):
                return Admission("skip", status=admission.status)
            replay = partial(self._store.admit, request, is_replayed=True)
            admission = await while_unavailable(replay, retry_seconds)
        if admission.verdict == "skip":
            seconds = await self._sent_once_seconds(run, admission)
            if seconds is not None:
                is_copy = seconds > _SENT_AGAIN_SECONDS
                return self.foreign(request.key) if is_copy else replace(admission, verdict="twice")
        if admission.verdict == "run":
            self._begin(request, admission)
        return admission

    def foreign(self, key: str) -> Admission:
        """Admit a run whose metadata was written for another run (`mageflow.metadata.is_copied`): it is a plain one.

        No round trip. Telemetry: as `admit`, with the result ``foreign``.
        """
        return self._store.foreign(key)

    def _begin(self, request: AdmissionRequest, admission: Admission) -> None:
        keys = self._store.keys.parse(request.key)
        path, _ = locate(keys, request.run)
        self._acknowledgements.forget(keys.record, str(path))
        self._heartbeats.start(keys, path, request.run.workflow_run_id)
        if admission.signature is not None:
            self._binder.bind(admission.signature)
        if admission.flow_kind and not admission.goes_on:
            self._interceptor.event(
                FlowStep(
                    admission.flow_kind,
                    admission.flow_id,
                    admission.flow_name,
                    admission.step,
                    admission.handover_seconds,
                )
            )

    async def _sent_once_seconds(self, run: RunIdentity, admission: Admission) -> float | None:
        """How long after the run that owns its step a run with the same metadata was made; None without the same.

        Each sending writes the time anew, so one that a relay repeats has other metadata. The same metadata is a copy,
        or one call that the SDK has repeated within seconds. Both times are Hatchet's: the clocks of senders differ,
        and Hatchet may have stood still.
        """
        owner = admission.owner_run_id
        if admission.status not in _OF_ANOTHER_RUN or owner in {"", run.workflow_run_id}:
            return None
        try:
            mine, owners = await asyncio.gather(
                self._dispatcher.origin(run.workflow_run_id), self._dispatcher.origin(owner)
            )
        except DispatchError as error:
            _log.warning("Hatchet did not say when it made the run %s: %s", run.workflow_run_id, error)
            return None
        if mine is None or owners is None or not mine.stamp or mine.stamp != owners.stamp:
            return None
        return mine.created_at - owners.created_at
