"""The private names of the SDK that ``mageflow.hatchet`` uses, each with the behaviour it depends on."""

import inspect
import re

from hatchet_sdk import Context, DurableContext, Hatchet
from hatchet_sdk.clients.admin import AdminClient
from hatchet_sdk.clients.dispatcher.dispatcher import DispatcherClient
from hatchet_sdk.deprecated.worker import _legacy_start_action_listener
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from hatchet_sdk.worker.runner.runner import Runner
from hatchet_sdk.worker.runner.utils.capture_logs import LogForwardingHandler
from hatchet_sdk.worker.worker import Worker


def test_the_worker_enters_the_dependency_manager_around_every_kind_of_call() -> None:
    """Coroutines and thread-pool functions alike run inside ``_unpack_dependencies_with_cleanup``; batches do not."""
    source = inspect.getsource(Runner.async_wrapped_action_func)
    before = source.index("async with task._unpack_dependencies_with_cleanup(ctx) as dependencies")
    assert before < source.index("await task.aio_call(ctx, dependencies)")
    assert before < source.index("run_in_executor")
    assert "_unpack_dependencies_with_cleanup" not in inspect.getsource(Runner.handle_start_batch)
    assert "task._fn)(task_inputs, context)" in inspect.getsource(Runner.handle_start_batch)


def test_the_dependency_manager_does_nothing_for_a_function_without_dependencies() -> None:
    """It is not entered for such a function, so it must do nothing else than resolve and leave dependencies."""
    source = inspect.getsource(Task._unpack_dependencies_with_cleanup)
    used = set(re.findall(r"self\.(\w+)", source))
    assert used <= {"_fn", "_workflow", "_parse_parameter", "_parse_maybe_cm_param"}
    assert "input = self._workflow._get_workflow_input(ctx)" in source
    assert "yield dependencies" in source


def test_a_cancelled_coroutine_sends_no_event() -> None:
    """To turn a run away, the runner cancels it in the engine and raises CancelledError."""
    source = inspect.getsource(Runner.step_run_callback)
    assert "if was_cancelled or task.cancelled():\n                return" in source


def test_cancel_sets_the_flag_first_and_cancels_a_second_later_but_eviction_at_once() -> None:
    """The time between the flag and the cancellation distinguishes an eviction from a cancellation."""
    cancel = inspect.getsource(Runner.handle_cancel_action)
    assert cancel.index("_set_cancellation_flag()") < cancel.index("asyncio.sleep(1)") < cancel.index(".cancel()")
    evict = inspect.getsource(Runner._eviction_cancel_callback)
    assert "_set_cancellation_flag()" in evict
    assert "sleep" not in evict


def test_the_log_forwarder_forwards_nothing_outside_of_a_run() -> None:
    """Hiding the run id keeps an event out of Hatchet's queue."""
    source = inspect.getsource(LogForwardingHandler.emit)
    assert "step_run_id = ctx_step_run_id.get()" in source
    assert "if not step_run_id:\n            return" in source


def test_the_worker_examines_the_output_of_a_batch_by_the_same_rules() -> None:
    """``outputs.batch_errors`` repeats these, so that each run of a batch is counted as it is reported."""
    source = inspect.getsource(Runner.handle_start_batch)
    for rule in (
        "if context.is_cancelled:\n                return",
        "broadcast = task.batch is not None and task.batch.broadcast_output",
        "if not isinstance(outputs, dict):",
        "if len(outputs) != len(action.batch_items):",
        "if diff := output_ids.difference(input_ids):",
        "failed_items.append(",
        "should_not_retry=False",
        "if not serialized:",
    ):
        assert rule in source, rule


def test_a_report_that_is_refused_for_its_size_is_given_up() -> None:
    """``outputs.refuse_too_large`` fails such an attempt before. The dispatcher client has the limit."""
    assert "self.config = config" in inspect.getsource(DispatcherClient.__init__)
    assert "return None" in inspect.getsource(DispatcherClient.send_step_action_event)


def test_serialize_output_looks_at_its_arguments_only() -> None:
    """It is called without a runner."""
    assert "self" not in inspect.getsource(Runner.serialize_output).replace("self,", "", 1)


def test_names_exist() -> None:
    """Everything else, by name."""
    for owner, names in {
        Task: ["_unpack_dependencies_with_cleanup", "_create_mock_context"],
        Context: ["_set_cancellation_flag"],
        DurableContext: ["_spawn_children_no_wait"],
        DispatcherClient: ["_get_or_create_aio_client", "refresh_timeout"],
    }.items():
        for name in names:
            assert hasattr(owner, name), (owner, name)
    for owner, attributes in {
        Task: ["_fn", "_is_durable", "_is_async_function", "_validators"],
        Context: ["_action", "_dispatcher_client", "_exit_flag"],
        Hatchet: ["_client"],
        Standalone: ["_output_validator", "_task", "_workflow"],
        BaseWorkflow: ["_config", "_client"],
        Worker: ["_slot_config", "_action_registry", "_lifespan", "_ctx"],
    }.items():
        source = inspect.getsource(owner)
        for attribute in attributes:
            assert f"self.{attribute}" in source, (owner, attribute)


def test_listener_processes_are_started_with_keywords() -> None:
    """A context around the worker's own adds what runs first in the process."""
    for start in (Worker._start_action_listener, _legacy_start_action_listener):
        source = inspect.getsource(start)
        assert "_ctx.Process(\n" in source
        assert "target=" in source
        assert "args=(" in source


def test_mock_contexts_are_recognised_by_their_action() -> None:
    """``mock_run`` must find neither engine nor telemetry."""
    assert 'action_id="mock:action"' in inspect.getsource(Task._create_mock_context)


def test_stubs_exist_once_they_are_used(mageflow_hatchet: Hatchet) -> None:
    """A forked child is refused if its parent has used one, and every call goes through one."""
    client = mageflow_hatchet._client
    stubs = [client.admin.client, client.admin.v0_client, client.event._client, client.event._aio_client]
    stubs += [client.dispatcher.client, client.dispatcher.aio_client, client.workflow_listener.client]
    assert stubs == [None] * 7
    assert client.admin._get_or_create_v0_client() is client.admin.v0_client
    assert client.event._get_or_create_client() is client.event._client


def test_every_send_of_runs_goes_through_the_stub_of_one_method() -> None:
    """``client_compat.sending_within`` replaces that method, so that a send of a flow has an end."""
    source = inspect.getsource(AdminClient.aio_run_workflows)
    assert "client = self._get_or_create_v0_client()" in source
    assert "client.BulkTriggerWorkflow, self.config.tenacity" in source
    assert "timeout=" not in source
