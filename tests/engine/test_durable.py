"""Durable tasks on the client: the log, the delivery rule, eviction, branches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import grpc
import pytest

from mageflow.engine.contracts import condition_pb2 as conditions
from mageflow.engine.contracts import dispatcher_pb2 as pb
from mageflow.engine.contracts import trigger_pb2 as trigger
from mageflow.engine.contracts import v1_dispatcher_pb2 as durable
from mageflow.engine.contracts import v1_workflows_pb2 as v1
from tests.engine.durable_stream import DurableStream
from tests.engine.raw_client import ManualWorker, RawClient, outputs, task, unique


class Durable:
    """A durable workflow, a child workflow, their worker and its durable stream."""

    def __init__(self, client: RawClient, name: str, worker: ManualWorker, channel: DurableStream) -> None:
        self.client = client
        self.name = name
        self.child = f"{name}-child"
        self.worker = worker
        self.channel = channel

    async def start(self) -> pb.AssignedAction:
        """Start a run and return its action."""
        await self.client.run(self.name)
        return await self.worker.next()

    async def spawn(
        self, action: pb.AssignedAction, *children: dict[str, object], key: str = ""
    ) -> durable.DurableTaskEventTriggerRunsAckResponse:
        """Spawn children, by index or by one key."""
        options = [
            trigger.TriggerWorkflowRequest(
                name=self.child,
                input=json.dumps(each),
                parent_id=action.workflow_run_id,
                parent_task_run_external_id=action.task_run_external_id,
                child_index=index,
                **({"child_key": key} if key else {}),
            )
            for index, each in enumerate(children)
        ]
        self.channel.send(
            trigger_runs=durable.DurableTaskTriggerRunsRequest(
                invocation_count=action.durable_task_invocation_count,
                durable_task_external_id=action.task_run_external_id,
                trigger_opts=options,
            )
        )
        return await self.channel.next("trigger_runs_ack")

    async def event_wait(self, action: pb.AssignedAction, key: str) -> durable.DurableEventLogEntryRef:
        """Wait for an event; return the place of the wait."""
        return await self.channel.wait(
            action,
            conditions.DurableEventListenerConditions(
                user_event_conditions=[
                    conditions.UserEventMatchCondition(
                        base=conditions.BaseMatchCondition(readable_data_key=key, or_group_id=str(uuid4())),
                        user_event_key=key,
                    )
                ]
            ),
        )

    async def memo(self, action: pb.AssignedAction, key: str) -> durable.DurableTaskEventMemoAckResponse:
        """Ask for a memo."""
        self.channel.send(
            memo=durable.DurableTaskMemoRequest(
                invocation_count=action.durable_task_invocation_count,
                durable_task_external_id=action.task_run_external_id,
                key=key.encode(),
            )
        )
        return await self.channel.next("memo_ack")

    async def evict(self, action: pb.AssignedAction) -> None:
        """Evict and wait for the acknowledgement."""
        self.channel.evict(action)
        await self.channel.next("eviction_ack")

    async def let_deliveries_age(self) -> None:
        """Wait until a delivery no longer counts as crossing an eviction: the engine allows one second for that."""
        await asyncio.sleep(1.1)

    async def restore(self, action: pb.AssignedAction) -> pb.AssignedAction:
        """Restore over REST and return the next invocation's action."""
        path = f"/api/v1/stable/tasks/{action.task_run_external_id}/restore"
        assert await self.client.post(path, None) == {"requeued": True}
        return await self.worker.next()


@asynccontextmanager
async def durable_workflow(client: RawClient) -> AsyncIterator[Durable]:
    """Register, connect, hand over."""
    name = unique("durable")
    await client.put(name, task("work", name, is_durable=True, slot_requests={"durable": 1}))
    await client.put(f"{name}-child", task("child", f"{name}-child"))
    async with client.worker(f"{name}:work", f"{name}-child:child", slots={"default": 5, "durable": 1}) as worker:
        channel = DurableStream(client, worker)
        await channel.next("register_worker")
        yield Durable(client, name, worker, channel)
        channel.call.cancel()


async def test_a_sleep_completes_when_it_is_waited_for_and_repeats_its_own_text(client: RawClient) -> None:
    """Nothing is sent before the worker declares the wait. The payload repeats the condition's duration."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        assert action.durable_task_invocation_count == 1
        place = await flow.channel.sleep(action, "2s")
        assert (place.branch_id, place.node_id) == (1, 1)
        flow.channel.declare(place)
        completed = await flow.channel.next("entry_completed")
        assert json.loads(completed.payload) == {"CREATE": {"sleep:2s": [{"sleep_duration": "2s"}]}}
        assert completed.satisfied_order == 1
        await flow.worker.complete(action, {"slept": True})
        assert outputs(await client.result(action.workflow_run_id)) == {"work": {"slept": True}}


async def test_a_completion_that_is_not_waited_for_is_not_sent(client: RawClient) -> None:
    """A child that the task does not wait for must not block the SDK's queue."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        ack = await flow.spawn(action, {"n": 1})
        child = await flow.worker.next()
        await flow.worker.complete(child, {"n": 2})
        await client.result(child.workflow_run_id)
        place = await flow.channel.sleep(action, "1s")
        flow.channel.declare(place)
        completed = await flow.channel.next("entry_completed")
        assert completed.ref.node_id == place.node_id != ack.run_entries[0].node_id


async def test_concurrent_completions_keep_their_first_order_in_the_next_invocation(client: RawClient) -> None:
    """The first delivery fixes the order. After an eviction it is the same, in any order of the declarations."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        early_key, late_key = unique("early"), unique("late")
        late = await flow.event_wait(action, late_key)
        early = await flow.event_wait(action, early_key)
        flow.channel.declare(late, early)
        await client.push(early_key, {"n": 1})
        assert (await flow.channel.next("entry_completed")).ref.node_id == early.node_id
        await client.push(late_key, {"n": 2})
        assert (await flow.channel.next("entry_completed")).ref.node_id == late.node_id
        third = await flow.event_wait(action, unique("never"))
        flow.channel.declare(third)
        await flow.let_deliveries_age()
        await flow.evict(action)
        action = await flow.restore(action)
        assert action.durable_task_invocation_count == 2
        places = [await flow.event_wait(action, key) for key in (late_key, early_key)]
        assert [each.node_id for each in places] == [late.node_id, early.node_id]
        flow.channel.declare(places[0])
        flow.channel.declare(places[1])
        order = [(await flow.channel.next("entry_completed")).ref.node_id for _ in range(2)]
        assert order == [early.node_id, late.node_id]


async def test_an_order_that_cannot_be_kept_is_dropped_after_two_seconds(client: RawClient) -> None:
    """Changed code may not wait for the first entry any more. The second one must still arrive."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        first_key, second_key = unique("first"), unique("second")
        places = [await flow.event_wait(action, key) for key in (first_key, second_key)]
        flow.channel.declare(*places)
        for key in (first_key, second_key):
            await client.push(key, {})
            await flow.channel.next("entry_completed")
        await flow.let_deliveries_age()
        await flow.evict(action)
        action = await flow.restore(action)
        again = [await flow.event_wait(action, key) for key in (first_key, second_key)]
        flow.channel.declare(again[1])
        assert (await flow.channel.next("entry_completed", within=4)).ref.node_id == places[1].node_id


async def test_a_repeated_declaration_is_answered_again(client: RawClient) -> None:
    """Two spawns with one key wait for one node: the second wait is answered although the entry was delivered."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        one = (await flow.spawn(action, {"n": 1}, key="same")).run_entries[0]
        two = (await flow.spawn(action, {"n": 1}, key="same")).run_entries[0]
        assert one == two
        await flow.worker.complete(await flow.worker.next(), {"n": 2})
        place = durable.DurableEventLogEntryRef(
            durable_task_external_id=action.task_run_external_id,
            invocation_count=1,
            branch_id=one.branch_id,
            node_id=one.node_id,
        )
        for _ in range(2):
            flow.channel.declare(place)
            assert json.loads((await flow.channel.next("entry_completed")).payload) == {"n": 2}


async def test_a_failed_child_is_a_failure_with_its_text(client: RawClient) -> None:
    """``is_failure`` is set, with the child's error. A cancelled child has a text of its own."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        entries = (await flow.spawn(action, {"n": 1}, {"n": 2})).run_entries
        children = {each.workflow_run_external_id: each for each in entries}
        actions = {each.workflow_run_id: each for each in (await flow.worker.next(), await flow.worker.next())}
        failing, cancelled = list(children)
        await flow.worker.fail(actions[failing], "child broke")
        await client.post(f"{client.stable}/tasks/cancel", {"externalIds": [cancelled]})
        for each, text in ((failing, "child broke"), (cancelled, "task was cancelled")):
            place = durable.DurableEventLogEntryRef(
                durable_task_external_id=action.task_run_external_id,
                invocation_count=1,
                branch_id=1,
                node_id=children[each].node_id,
            )
            flow.channel.declare(place)
            completed = await flow.channel.next("entry_completed")
            assert (completed.is_failure, completed.error_message) == (True, text)


async def test_an_evicted_task_gives_its_slot_back_and_returns_when_its_wait_is_over(client: RawClient) -> None:
    """EVICTED is shown as RUNNING. The satisfied wait queues the task again, and the new invocation replays the log."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        memo = await flow.memo(action, "once")
        assert memo.memo_already_existed is False
        flow.channel.send(
            complete_memo=durable.DurableTaskCompleteMemoRequest(ref=memo.ref, payload=b'"first"', memo_key=b"once")
        )
        key = unique("wake")
        flow.channel.declare(await flow.event_wait(action, key))
        await flow.evict(action)
        details = await client.details(action.workflow_run_id)
        assert (details.is_evicted, details.done) == (True, False)
        other = await flow.start()
        await flow.worker.complete(other)
        await client.push(key, {"n": 1})
        again = await flow.worker.next()
        assert (again.durable_task_invocation_count, again.retry_count) == (2, 0)
        replayed = await flow.memo(again, "once")
        assert (replayed.memo_already_existed, replayed.memo_result_payload) == (True, b'"first"')
        flow.channel.declare(await flow.event_wait(again, key))
        assert json.loads((await flow.channel.next("entry_completed")).payload) == {"CREATE": {key: [{"n": 1}]}}


async def test_a_memo_that_comes_after_its_task_has_ended_is_kept(client: RawClient) -> None:
    """It is a separate request and may arrive after the report that ends the task, or after a replay."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        memo = await flow.memo(action, "once")
        await flow.worker.complete(action)
        await client.post(f"{client.stable}/tasks/replay", {"externalIds": [action.workflow_run_id]})
        again = await flow.worker.next()
        flow.channel.send(
            complete_memo=durable.DurableTaskCompleteMemoRequest(ref=memo.ref, payload=b'"first"', memo_key=b"once")
        )
        replayed = await flow.memo(again, "once")
        assert (replayed.memo_already_existed, replayed.memo_result_payload) == (True, b'"first"')


async def test_a_completion_that_crossed_an_eviction_is_not_lost(client: RawClient) -> None:
    """A completion is sent just before the eviction arrives: the task is queued again at once."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        key = unique("crossing")
        flow.channel.declare(await flow.event_wait(action, key))
        await client.push(key, {})
        await flow.channel.next("entry_completed")
        await flow.evict(action)
        assert (await flow.worker.next()).durable_task_invocation_count == 2


async def test_requests_of_an_old_invocation_are_evicted(client: RawClient) -> None:
    """A request with another invocation count is answered by ``server_evict`` with that count."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        await flow.evict(action)
        await flow.restore(action)
        flow.channel.declare(
            durable.DurableEventLogEntryRef(
                durable_task_external_id=action.task_run_external_id, invocation_count=1, branch_id=1, node_id=1
            )
        )
        assert (await flow.channel.next("server_evict")).invocation_count == 1


async def test_changed_code_is_answered_with_the_node_that_differs(client: RawClient) -> None:
    """A different request at the same node is NONDETERMINISM. The stream stays open."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        await flow.channel.sleep(action, "3600s")
        await flow.evict(action)
        action = await flow.restore(action)
        flow.channel.send(
            memo=durable.DurableTaskMemoRequest(
                invocation_count=2, durable_task_external_id=action.task_run_external_id, key=b"new code"
            )
        )
        error = await flow.channel.next("error")
        assert error.error_type == durable.DURABLE_TASK_ERROR_TYPE_NONDETERMINISM
        assert (error.ref.node_id, error.ref.invocation_count) == (1, 2)
        assert "non-determinism" in error.error_message


async def test_a_child_of_an_unknown_workflow_never_ends(client: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    """As in Hatchet. A warning in the engine's log gives the reason at once."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        flow.child = "nobody-registered-this-child"
        (entry,) = (await flow.spawn(action, {})).run_entries
        assert (entry.node_id, bool(entry.workflow_run_external_id)) == (1, True)

        async def warned() -> bool:
            return "of 'nobody-registered-this-child' will never start" in caplog.text

        await client.until(warned, "the warning")


async def test_a_child_that_cannot_start_is_an_error_and_leaves_its_node_free(client: RawClient) -> None:
    """A child whose idempotency key is held fails that request only."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        known, flow.child = flow.child, unique("held")
        key = v1.IdempotencyConfig(expression="'one'", ttl_ms=60_000)
        await client.put(flow.child, task("work", flow.child), idempotency=key)
        await client.run(flow.child)
        with pytest.raises(AssertionError, match="idempotency key collision"):
            await flow.spawn(action, {})
        flow.child = known
        assert (await flow.spawn(action, {})).run_entries[0].node_id == 1


async def test_a_branch_keeps_what_came_before_it(client: RawClient) -> None:
    """Reset at node 2: node 1 is replayed from the parent branch, node 2 is executed again on the new branch."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        first = await flow.memo(action, "a")
        flow.channel.send(
            complete_memo=durable.DurableTaskCompleteMemoRequest(ref=first.ref, payload=b"1", memo_key=b"a")
        )
        second = await flow.memo(action, "b")
        flow.channel.send(
            complete_memo=durable.DurableTaskCompleteMemoRequest(ref=second.ref, payload=b"2", memo_key=b"b")
        )
        await flow.worker.complete(action)
        await client.result(action.workflow_run_id)
        body = {"taskExternalId": action.task_run_external_id, "nodeId": 2, "branchId": 1}
        assert (await client.post(f"{client.stable}/durable-tasks/branch", body))["branchId"] == 2
        again = await flow.worker.next()
        kept, redone = await flow.memo(again, "a"), await flow.memo(again, "b")
        assert (kept.memo_already_existed, kept.ref.branch_id) == (True, 1)
        assert (redone.memo_already_existed, redone.ref.branch_id) == (False, 2)


async def test_a_running_task_cannot_be_branched(client: RawClient) -> None:
    """Branching replays the task. The error for a running task says to cancel it first."""
    async with durable_workflow(client) as flow:
        action = await flow.start()
        body = {"taskExternalId": action.task_run_external_id, "nodeId": 1, "branchId": 1}
        status, document = await client.http("POST", f"{client.stable}/durable-tasks/branch", body)
        assert status == 409
        assert "cancel it first" in document["errors"][0]["description"]


async def test_the_old_durable_calls_are_unimplemented(client: RawClient) -> None:
    """Engines from v0.80.0 on do not need them; the SDK does not retry UNIMPLEMENTED."""
    request = durable.RegisterDurableEventRequest(task_id=str(uuid4()), signal_key="x")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.call("v1.V1Dispatcher/RegisterDurableEvent", request, durable.RegisterDurableEventResponse)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
