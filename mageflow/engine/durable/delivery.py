"""When a satisfied entry may be sent to the worker.

The SDK queues completions of an invocation strictly in order of arrival and blocks behind a head that nobody waits
for. Hence:

1. only entries the worker has declared as waited for are sent;
2. the order of first delivery is kept over invocations: an entry waits until all before it in that order were sent
   in this invocation, so concurrent branches of a task see the same interleaving again;
3. when that order cannot be kept (the code changed, or a branch is slow), after two seconds it is dropped;
4. an entry declared again after it was sent is sent again: two spawns with one key wait on one node.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from mageflow.engine.contracts import v1_dispatcher_pb2 as pb
from mageflow.engine.durable.log import DurableLog, Entry

if TYPE_CHECKING:
    from mageflow.engine.clock import Clock

_ORDER_PATIENCE_SECONDS = 2.0


class Delivery:
    """Sends entries in order.

    Args:
        clock: for the fallback.
        send: puts a message on the stream of the task's worker; returns False when there is none at the moment.
    """

    def __init__(self, clock: Clock, send: Callable[[Entry, pb.DurableTaskResponse], bool]) -> None:
        self._clock = clock
        self._send = send

    def declared(self, log: DurableLog, entry: Entry) -> None:
        """The worker waits for this entry."""
        log.waiting[entry] = None
        if entry in log.delivered:
            self._deliver(log, entry)
        elif entry.satisfied:
            log.ready[entry] = None

    def satisfied(self, log: DurableLog, entry: Entry) -> None:
        """What an entry waited for is there."""
        if entry in log.waiting and entry not in log.delivered:
            log.ready[entry] = None

    def advance(self, log: DurableLog) -> None:
        """Send everything that may be sent now, without a look at each of the thousands of entries a log may hold."""
        for entry in islice(log.order, log.kept, None):
            if entry not in log.delivered and (entry not in log.ready or not self._deliver(log, entry)):
                self._start_fallback(log)
                return
            log.kept += 1
        self._deliver_ready(log)
        log.cancel_fallback()

    def _deliver_ready(self, log: DurableLog) -> None:
        for entry in list(log.ready):
            self._deliver(log, entry)

    def _start_fallback(self, log: DurableLog) -> None:
        if log.order_fallback is None:
            log.order_fallback = self._clock.later(_ORDER_PATIENCE_SECONDS, self._without_order, log)

    def _without_order(self, log: DurableLog) -> None:
        log.order_fallback = None
        self._deliver_ready(log)

    def _deliver(self, log: DurableLog, entry: Entry) -> bool:
        place = log.order.setdefault(entry, len(log.order) + 1)
        completed = pb.DurableTaskEventLogEntryCompletedResponse(
            ref=pb.DurableEventLogEntryRef(
                durable_task_external_id=entry.task.id,
                invocation_count=entry.task.invocation,
                branch_id=entry.branch,
                node_id=entry.node,
            ),
            payload=entry.payload,
            is_failure=entry.error is not None,
            satisfied_order=place,
        )
        if entry.error is not None:
            completed.error_message = entry.error
        if not self._send(entry, pb.DurableTaskResponse(entry_completed=completed)):
            return False
        log.delivered[entry] = self._clock.monotonic()
        log.ready.pop(entry, None)
        return True
