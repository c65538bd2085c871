"""From a decorated function to a task of the SDK with mageflow around it.

The SDK makes the task. mageflow gives it a function that binds arguments, and runs around its attempts.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Self, cast, get_args, get_origin

from hatchet_sdk import Context
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import EmptyModel
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from typing_inspection.typing_objects import is_annotated, is_typealiastype

from mageflow._frozen import frozen
from mageflow.errors import DecorationError, SdkFeatureError
from mageflow.hatchet import compat, declaration_compat, durations
from mageflow.hatchet.hooks import Hooks
from mageflow.hatchet.input_types import fits_no_message, input_type, is_message, no_object, type_name
from mageflow.hatchet.private_names import require_names
from mageflow.hatchet.register import Declared, TaskRegister
from mageflow.interceptors import TaskDeclared, TaskInfo
from mageflow.invocation import (
    GENERATOR,
    Marks,
    RunnerServices,
    TaskRunner,
    bind,
    is_generator,
    marks_of,
    type_hints,
)
from mageflow.types import AcceptParams, Pool

__all__ = ["BoundFunction", "Declarations"]


@frozen
class BoundFunction:
    """A function that can be declared as a task: mageflow has decided which arguments it gets."""

    func: Callable[..., Any]
    marks: Marks
    runner: TaskRunner | None
    """None for the placeholder of ``hatchet.stubs``, which is only a name to trigger."""
    input_type: Any | None
    """The type that the message is annotated with, where the SDK can validate it: a pydantic model, a dataclass, a
    TypedDict or a dict. None for anything else, and for a function that the plain Hatchet client runs as it stands.
    Then the SDK's default applies."""
    is_batch: bool


class Declarations:
    """Declares tasks for one client.

    Args:
        register: Where the declarations are kept.
        params: The client's choice of arguments.
        services: What every task of the client shares.
        around_spawns: Spawns the children of a durable task.
        hooks: Installs what runs around attempts.
    """

    def __init__(
        self,
        register: TaskRegister,
        params: AcceptParams,
        services: RunnerServices,
        around_spawns: compat.AroundSpawns,
        hooks: Hooks,
    ) -> None:
        self._register = register
        self._params = params
        self._services = services
        self._around_spawns = around_spawns
        self._hooks = hooks

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a workflow that is copied declares for the same client."""
        return self

    def bind(self, func: Callable[..., Any], *, is_batch: bool = False) -> BoundFunction:
        """Decide which arguments a function gets. Each declaration does this once.

        Raises:
            DecorationError: The function's parameters or decorators cannot be served.
        """
        if declaration_compat.is_stub(func):
            return BoundFunction(func, Marks(), None, None, is_batch)
        if (reason := _why_not_a_function(func)) is not None:
            raise DecorationError("task", _name_of(func), reason)
        marks = marks_of(func)
        if is_batch:
            _refuse_on_batch(func, marks)
        binding = bind(
            func,
            params=self._params,
            marks=marks,
            is_context=_is_context,
            is_dependency=_is_dependency,
            is_message=is_message,
        )
        annotation = type_hints(func).get(binding.message_name)
        if is_batch and get_origin(annotation) is dict and len(get_args(annotation)) == 2:  # noqa: PLR2004 - key, value
            annotation = get_args(annotation)[1]
        runner = TaskRunner(func, binding, self._services, locks=marks.locks)
        is_for_hatchet = binding.is_plain and marks == Marks() and self._params is AcceptParams.NO_CTX
        if not is_for_hatchet and fits_no_message(annotation):
            what = f"{binding.message_name!r} takes {type_name(annotation)}"
            raise DecorationError("task", _name_of(func), no_object(what))
        return BoundFunction(func, marks, runner, None if is_for_hatchet else input_type(annotation), is_batch)

    def standalone(
        self, declare: Callable[[Callable[..., Any]], Standalone[Any, Any]], bound: BoundFunction
    ) -> Standalone[Any, Any]:
        """Declare a stand-alone task with the SDK's decorator."""
        made = declare(bound.func if bound.runner is None else bound.runner.function())
        # Not the name of the SDK's task: that one is in lower case, and Hatchet runs the task by the other.
        self._declared(bound, declaration_compat.task_of(made), made, declaration_compat.config_of(made).name)
        return made

    def step(
        self,
        declare: Callable[[Callable[..., Any]], Task[Any, Any]],
        bound: BoundFunction,
        workflow: BaseWorkflow[Any],
        *,
        infers_input: bool = False,
    ) -> Task[Any, Any]:
        """Declare a task of a workflow with the SDK's decorator; its label is ``workflow:task``.

        Args:
            declare: The SDK's decorator.
            bound: The function.
            workflow: The workflow.
            infers_input: Whether the workflow takes the input type of this task; it must have none, or the same.

        Raises:
            DecorationError: Another task of the workflow has another input type.
        """
        if infers_input and bound.input_type is not None:
            self._infer_input(workflow, bound)
        task = declare(bound.func if bound.runner is None else bound.runner.function())
        self._declared(bound, task, workflow, f"{declaration_compat.config_of(workflow).name}:{task.name}")
        return task

    def added(self, standalone: Standalone[Any, Any], workflow: BaseWorkflow[Any]) -> None:
        """Note that a stand-alone task is a task of a workflow too."""
        task = declaration_compat.task_of(standalone)
        compat.note_added(task, workflow)
        declared = self._register.find_task(task)
        if declared is not None:
            self._register.add_workflow(
                declaration_compat.config_of(workflow).name, replace(declared, runnable=workflow)
            )

    def _infer_input(self, workflow: BaseWorkflow[Any], bound: BoundFunction) -> None:
        """All tasks of a workflow get one input, so it has one type."""
        if workflow.input_validator_type is EmptyModel:
            declaration_compat.set_input_type(workflow, bound.input_type)
        elif workflow.input_validator_type != bound.input_type:
            name, first = declaration_compat.config_of(workflow).name, workflow.input_validator_type
            raise DecorationError(
                "task",
                _name_of(bound.func),
                f"the tasks of a workflow get one input, and another task takes it as {type_name(first)}, this one as "
                f"{type_name(bound.input_type)}: write client.workflow(name={name!r}, input_validator=...)",
            )

    def _declared(self, bound: BoundFunction, task: Task[Any, Any], runnable: BaseWorkflow[Any], name: str) -> None:
        info = _info(bound, task, runnable, name)
        runner = bound.runner
        if runner is not None:  # a stub is neither wrapped nor does it replace the real task in the register
            runner.info = info
            with self._hooks.installing("attempt", "attempts have no telemetry, no stagger and no signature"):
                require_names("attempts")
                if bound.is_batch:
                    compat.around_batch(task, runner.around_attempt, runner.around_batch_in_thread, self._around_spawns)
                else:
                    compat.around_attempt(
                        task,
                        runner.around_attempt,
                        self._around_spawns,
                        is_dependency=_is_dependency,
                    )
                    declaration_compat.take_any_result(task)
            if bound.marks.locks and not self._hooks.has("attempt"):
                raise SdkFeatureError("place for the locks of @client.exclusive", version("hatchet-sdk"))
            self._register.add(Declared(info, task, runnable))
        self._services.interceptor.event(TaskDeclared(info))


def _info(bound: BoundFunction, task: Task[Any, Any], runnable: BaseWorkflow[Any], name: str) -> TaskInfo:
    func, window = bound.func, bound.marks.stagger_window
    pool: Pool = "durable" if declaration_compat.pool_of(task) == "durable" else "default"
    return TaskInfo(
        name=name,
        workflow_name=declaration_compat.config_of(runnable).name,
        execution_timeout_seconds=durations.seconds(task.execution_timeout),
        retries=task.retries,
        pool=pool,
        is_batch=bound.is_batch,
        is_async=inspect.iscoroutinefunction(func),
        stagger_window_seconds=window.total_seconds() if window else None,
        code_function_name=f"{func.__module__}.{func.__qualname__}",
        default_priority=int(declaration_compat.config_of(runnable).default_priority or 1),
    )


def _name_of(func: object) -> str:
    return str(getattr(func, "__qualname__", None) or getattr(func, "name", None) or type(func).__name__)


def _why_not_a_function(func: object) -> str | None:
    if isinstance(func, staticmethod | classmethod):
        kind = type(cast("object", func)).__name__
        return f"a {kind} is not a function inside its class: write client.task(...)(Class.method) below the class"
    if inspect.isroutine(func):
        return GENERATOR if is_generator(func) else None
    return f"a task needs a function, and this is a {type(func).__name__}: write async def task(msg: MyModel) around it"


def _is_context(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Context)


def _is_dependency(annotation: object) -> bool:
    if is_typealiastype(annotation):
        annotation = annotation.__value__
    if not is_annotated(get_origin(annotation)):
        return False
    return any(isinstance(each, compat.dependency_type) for each in get_args(annotation)[1:])


def _refuse_on_batch(func: Callable[..., Any], marks: Marks) -> None:
    target = getattr(func, "__qualname__", repr(func))
    if marks.signature:
        raise DecorationError(
            "with_signature",
            target,
            "a batch carries many runs, and Hatchet does not pass the metadata of each: "
            "write @client.with_signature on the task that starts these runs",
        )
    if marks.locks:
        raise DecorationError(
            "exclusive", target, "a batch carries many messages: write async with resource.acquire(key=...) in the body"
        )
    if marks.stagger_window is not None:
        raise DecorationError(
            "stagger_execution",
            target,
            "the engine collects a batch over batch_max_interval already: "
            "write @client.stagger_execution on the task that starts these runs",
        )
