"""When a satisfied entry may be sent to the worker.

The SDK queues the completions of an invocation in the order in which they arrive, and blocks behind one that the task
does not wait for. Therefore:

1. Only entries that the worker has declared as waited for are sent.
2. The order of the first delivery is kept in later invocations: an entry is sent after all entries before it in that
   order were sent in this invocation. Concurrent branches of a task see the same order again.
3. If that order cannot be kept (the code changed, or a branch is slow), it is dropped after two seconds.
4. An entry that is declared again after it was sent is sent again: two spawns with one key wait for one node.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from mageflow.engine.clock import Clock
from mageflow.engine.contracts import v1_dispatcher_pb2 as pb
from mageflow.engine.durable.log import DurableLog, Entry

_ORDER_TIMEOUT_SECONDS = 2.0


class Delivery:
    """Sends entries in order.

    Args:
        clock: for the timeout of the order.
        send: puts a message on the stream of the task's worker; returns False if the worker has no open stream.
    """

    def __init__(self, clock: Clock, send: Callable[[Entry, pb.DurableTaskResponse], bool]) -> None:
        self._clock = clock
        self._send = send

    def declared(self, log: DurableLog, entry: Entry) -> None:
        """Note that the worker waits for this entry."""
        log.waiting[entry] = None
        if entry in log.delivered:
            self._deliver(log, entry)
        elif entry.satisfied:
            log.ready[entry] = None

    def satisfied(self, log: DurableLog, entry: Entry) -> None:
        """Note that the entry has its result."""
        if entry in log.waiting and entry not in log.delivered:
            log.ready[entry] = None

    def advance(self, log: DurableLog) -> None:
        """Send everything that may be sent now. It does not look at each of a log's thousands of entries."""
        for entry in islice(log.order, log.kept, None):
            if entry not in log.delivered and (entry not in log.ready or not self._deliver(log, entry)):
                self._start_timeout(log)
                return
            log.kept += 1
        self._deliver_ready(log)
        log.cancel_fallback()

    def _deliver_ready(self, log: DurableLog) -> None:
        for entry in list(log.ready):
            self._deliver(log, entry)

    def _start_timeout(self, log: DurableLog) -> None:
        if log.order_fallback is None:
            log.order_fallback = self._clock.later(_ORDER_TIMEOUT_SECONDS, self._deliver_without_order, log)

    def _deliver_without_order(self, log: DurableLog) -> None:
        log.order_fallback = None
        self._deliver_ready(log)

    def _deliver(self, log: DurableLog, entry: Entry) -> bool:
        position = log.order.setdefault(entry, len(log.order) + 1)
        completed = pb.DurableTaskEventLogEntryCompletedResponse(
            ref=pb.DurableEventLogEntryRef(
                durable_task_external_id=entry.task.id,
                invocation_count=entry.task.invocation,
                branch_id=entry.branch,
                node_id=entry.node,
            ),
            payload=entry.payload,
            is_failure=entry.error is not None,
            satisfied_order=position,
        )
        if entry.error is not None:
            completed.error_message = entry.error
        if not self._send(entry, pb.DurableTaskResponse(entry_completed=completed)):
            return False
        log.delivered[entry] = self._clock.monotonic()
        log.ready.pop(entry, None)
        return True
