"""From a decorated function to a task of the SDK with mageflow around it.

The SDK makes the task; mageflow gives it a function that binds arguments, and goes around its attempts.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Self, cast, get_args, get_origin

from hatchet_sdk import Context
from hatchet_sdk.runnables.task import Task
from hatchet_sdk.runnables.types import EmptyModel
from hatchet_sdk.runnables.workflow import BaseWorkflow, Standalone
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict
from typing_inspection.typing_objects import is_annotated, is_typealiastype

from mageflow.errors import DecorationError
from mageflow.hatchet import compat, durations
from mageflow.hatchet.register import Declared, TaskRegister
from mageflow.interceptors import TaskInfo
from mageflow.invocation import Binding, Marks, RunnerServices, TaskRunner, alternatives, bind, marks_of, type_hints
from mageflow.types import AcceptParams, Pool

__all__ = ["Declarations"]


class Declarations:
    """Declares tasks for one client.

    Args:
        register: Where they are remembered.
        params: The client's choice of arguments.
        services: What every task of the client shares.
        on_declared: Told of each task, for the labels of its metrics.
    """

    def __init__(
        self,
        register: TaskRegister,
        params: AcceptParams,
        services: RunnerServices,
        on_declared: Callable[[TaskInfo], None],
    ) -> None:
        self._register = register
        self._params = params
        self._services = services
        self._on_declared = on_declared

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: a workflow that is copied declares for the same client."""
        return self

    def standalone(
        self,
        declare: Callable[[Callable[..., Any]], Standalone[Any, Any]],
        func: Callable[..., Any],
        *,
        is_batch: bool = False,
    ) -> Standalone[Any, Any]:
        """Declare a stand-alone task.

        Raises:
            DecorationError: A decorator asks for what cannot be.
        """
        if compat.is_stub(func):
            # Only a name to trigger: it must neither be wrapped nor take the place of the real task in the register.
            made = declare(func)
            self._on_declared(self._info(compat.task_of(made), made, compat.config_of(made).name, Marks(), func))
            return made
        runner, marks = self._runner(func, is_batch=is_batch)
        made = declare(runner.function())
        task = compat.task_of(made)
        # Not the task's own name: that one is put into lower case, and Hatchet runs it by the other.
        self._attach(runner, task, made, compat.config_of(made).name, marks, func, is_batch=is_batch)
        return made

    def step(
        self,
        declare: Callable[[Callable[..., Any]], Task[Any, Any]],
        func: Callable[..., Any],
        workflow: BaseWorkflow[Any],
        *,
        is_batch: bool = False,
    ) -> Task[Any, Any]:
        """Declare a task of a workflow; its label is ``workflow:task``.

        Raises:
            DecorationError: A decorator asks for what cannot be.
        """
        runner, marks = self._runner(func, is_batch=is_batch)
        task = declare(runner.function())
        name = f"{compat.config_of(workflow).name}:{task.name}"
        self._attach(runner, task, workflow, name, marks, func, is_batch=is_batch)
        return task

    def inferred_validator(self, func: Callable[..., Any], *, is_batch: bool = False) -> Any | None:
        """The input type the function's message is annotated with, where the SDK can validate it.

        A pydantic model, a dataclass, a TypedDict or a dict; None for anything else, and the SDK's default applies.

        Raises:
            DecorationError: As for the declaration.
        """
        if compat.is_stub(func):
            return None  # nobody calls it; what its name takes is given or not known
        binding, _ = self._binding(func, is_batch=is_batch)
        annotation = type_hints(func).get(binding.message_name)
        if is_batch and get_origin(annotation) is dict and len(get_args(annotation)) == 2:  # noqa: PLR2004 - key, value
            annotation = get_args(annotation)[1]
        return _input_type(annotation)

    def _binding(self, func: Callable[..., Any], *, is_batch: bool) -> tuple[Binding, Marks]:
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
            is_message=_is_message,
        )
        return binding, marks

    def _runner(self, func: Callable[..., Any], *, is_batch: bool) -> tuple[TaskRunner, Marks]:
        binding, marks = self._binding(func, is_batch=is_batch)
        return TaskRunner(func, binding, self._services, locks=marks.locks, is_batch=is_batch), marks

    def _info(
        self,
        task: Task[Any, Any],
        runnable: BaseWorkflow[Any],
        name: str,
        marks: Marks,
        func: Callable[..., Any],
        *,
        is_batch: bool = False,
    ) -> TaskInfo:
        pool: Pool = "durable" if compat.pool_of(task) == "durable" else "default"
        return TaskInfo(
            name=name,
            workflow_name=compat.config_of(runnable).name,
            execution_timeout_seconds=durations.seconds(task.execution_timeout),
            retries=task.retries,
            pool=pool,
            is_batch=is_batch,
            is_async=inspect.iscoroutinefunction(func),
            stagger_window_seconds=marks.stagger_window.total_seconds() if marks.stagger_window else None,
            code_function_name=f"{func.__module__}.{func.__qualname__}",
        )

    def _attach(
        self,
        runner: TaskRunner,
        task: Task[Any, Any],
        runnable: BaseWorkflow[Any],
        name: str,
        marks: Marks,
        func: Callable[..., Any],
        *,
        is_batch: bool,
    ) -> None:
        info = self._info(task, runnable, name, marks, func, is_batch=is_batch)
        runner.attach(info, task)
        if not is_batch:
            compat.around_attempt(task, runner.attempt)
        self._register.add(Declared(info, task, runnable))
        self._on_declared(info)


def _input_type(annotation: object) -> Any | None:
    kinds = alternatives(annotation)
    if len(kinds) != 1 or kinds[0] is EmptyModel:
        return None
    kind = kinds[0]
    if kind is dict or get_origin(kind) is dict:
        return kind
    if not isinstance(kind, type):
        return None
    if is_typeddict(kind):
        try:
            TypeAdapter(kind)
        except PydanticUserError:
            return dict[str, Any]  # typing.TypedDict before Python 3.12
        return kind
    return kind if issubclass(kind, BaseModel) or is_dataclass(kind) else None


def _is_message(annotation: object) -> bool:
    return _input_type(annotation) is not None


def _name_of(func: object) -> str:
    return str(getattr(func, "__qualname__", None) or getattr(func, "name", None) or type(func).__name__)


def _why_not_a_function(func: object) -> str | None:
    if isinstance(func, staticmethod | classmethod):
        kind = type(cast("object", func)).__name__
        return f"a {kind} becomes a function once its class exists: declare the task from there, task(Class.method)"
    if inspect.isroutine(func):
        return None
    return f"a task is made from a function, and this is a {type(func).__name__}: wrap it in one (async def)"


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
            "a batch carries many runs and Hatchet hands over no metadata of the single ones; "
            "sign the tasks that feed the batch",
        )
    if marks.locks:
        raise DecorationError("exclusive", target, "a batch carries many messages; acquire the lock in the body")
    if marks.stagger_window is not None:
        raise DecorationError(
            "stagger_execution",
            target,
            "a batch is already collected over batch_max_interval; stagger the tasks that feed it",
        )
