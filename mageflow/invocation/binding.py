"""Which arguments a function gets: decided once, when the task is declared.

Hatchet always calls ``function(input, ctx, **dependencies)``. A `Binding` turns this call into the call that the
function expects. It considers annotations first, then names, then positions. A function that cannot be called is an
error at declaration, not a ``TypeError`` at run time.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from mageflow._frozen import frozen
from mageflow.errors import DecorationError
from mageflow.invocation.decorators import Marks
from mageflow.signatures import TaskSignature
from mageflow.types import AcceptParams

__all__ = ["Binding", "alternatives", "bind", "type_hints"]

Role = Literal["message", "ctx", "signature"]

_MESSAGE_ALONE: Final = ("message",)
_METHOD: Final = "this is a method: declare it on an object, client.task(...)(service.method), or write a function"
_CONTEXT_NAMES = frozenset({"ctx", "context", "_ctx", "_context"})
_SIGNATURE_NAMES = frozenset({"signature", "_signature"})
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@frozen
class Binding:
    """Which of message, context and signature one function gets, and in which parameter."""

    positional: tuple[Role, ...]
    keyword: tuple[tuple[str, Role], ...]
    message_name: str = ""
    """The parameter for the message; empty if the message goes to ``*args`` or is not passed."""

    @property
    def is_plain(self) -> bool:
        """Whether the function takes exactly what the plain Hatchet client passes: the input, then the context."""
        return self.positional == ("message", "ctx") and not self.keyword

    @property
    def wants_signature(self) -> bool:
        """Whether the function gets its signature."""
        return "signature" in self.positional or any(role == "signature" for _, role in self.keyword)

    def arguments(
        self, message: object, ctx: object, signature: object, dependencies: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The positional and keyword arguments for one call."""
        if self.positional == _MESSAGE_ALONE and not self.keyword:  # what most functions take
            return (message,), dependencies
        values: dict[Role, object] = {"message": message, "ctx": ctx, "signature": signature}
        keywords = dict(dependencies)
        for name, role in self.keyword:
            keywords[name] = values[role]
        return [values[role] for role in self.positional], keywords


def bind(
    func: Callable[..., Any],
    *,
    params: AcceptParams,
    marks: Marks,
    is_context: Callable[[object], bool],
    is_dependency: Callable[[object], bool],
    is_message: Callable[[object], bool],
) -> Binding:
    """Decide which arguments ``func`` gets.

    A function that declares a context parameter gets the context with any ``params``, so that a function written for
    the plain Hatchet client works unchanged.

    Args:
        func: The user's function.
        params: The client's choice of arguments.
        marks: The marks of the function's decorators.
        is_context: Whether an annotation is Hatchet's context class.
        is_dependency: Whether an annotation is a dependency. Hatchet fills those parameters.
        is_message: Whether an annotation is an input type, so that the parameter can only be the message.

    Raises:
        DecorationError: A required argument has no parameter, or a parameter gets no argument. The message has the line
            to write.
    """
    name = getattr(func, "__qualname__", repr(func))
    hints = type_hints(func)
    parameters = list(inspect.signature(func).parameters.values())
    free = [
        each for each in parameters if not is_dependency(each.annotation) and not is_dependency(hints.get(each.name))
    ]
    has_varargs = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in free)
    declared = [each for each in free if each.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)]

    roles = _by_annotation_and_name(declared, hints, marks, is_context)
    wanted = _wanted(params, marks)
    open_parameters = [each for each in declared if each.name not in roles and each.kind in _POSITIONAL]
    unassigned: list[Role] = [each for each in wanted if each not in roles.values()]
    for role in unassigned:
        fitting = (each for each in open_parameters if _may_be(role, hints.get(each.name), is_message))
        parameter = next(fitting, None)
        if parameter is None and not has_varargs:
            raise DecorationError(*_missing(role, name, params))
        if parameter is not None:
            roles[parameter.name] = role
            open_parameters.remove(parameter)
    if "ctx" not in roles.values():
        # As in Hatchet, the next required positional parameter after the message is the context.
        required = [each for each in open_parameters if each.default is inspect.Parameter.empty]
        if required and not _is_signature(hints.get(required[0].name)) and not is_message(hints.get(required[0].name)):
            roles[required[0].name] = "ctx"
    for each in declared:
        if each.name not in roles and each.default is inspect.Parameter.empty:
            is_method = parameters[0].name == "self"
            reason = _METHOD if is_method else _unfilled(each.name, hints.get(each.name), params, is_message)
            raise DecorationError("task", name, reason)
    return _plan(parameters, roles, wanted if has_varargs else [], has_varargs=has_varargs)


def _wanted(params: AcceptParams, marks: Marks) -> list[Role]:
    wanted: list[Role] = [] if params is AcceptParams.CTX_ONLY else ["message"]
    if marks.ctx or params is not AcceptParams.NO_CTX:
        wanted.append("ctx")
    if marks.signature:
        wanted.append("signature")
    return wanted


def type_hints(func: Callable[..., Any]) -> dict[str, Any]:
    """The evaluated annotations of a function. Empty if one of them is a name that exists only for type checkers."""
    try:
        return get_type_hints(func, include_extras=True)
    except (NameError, TypeError):
        # Then names and positions decide, as in the SDK.
        return {}


def alternatives(annotation: object) -> tuple[object, ...]:
    """The types that a parameter accepts: the members of a union without None, and the type inside ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin is Union or origin is UnionType:
        return tuple(each for member in get_args(annotation) for each in alternatives(member))
    return () if annotation is NoneType else (annotation,)


def _is_signature(annotation: object) -> bool:
    return TaskSignature in alternatives(annotation)


def _may_be(role: Role, annotation: object, is_message: Callable[[object], bool]) -> bool:
    """Whether a parameter may get this role by its position alone."""
    if _is_signature(annotation):
        return role == "signature"
    return role == "message" or not is_message(annotation)


def _by_annotation_and_name(
    declared: list[inspect.Parameter], hints: dict[str, Any], marks: Marks, is_context: Callable[[object], bool]
) -> dict[str, Role]:
    roles: dict[str, Role] = {}

    def assign(role: Role, matches: Callable[[inspect.Parameter], bool]) -> None:
        if role not in roles.values():
            found = next((each for each in declared if each.name not in roles and matches(each)), None)
            if found is not None:
                roles[found.name] = role

    assign("ctx", lambda each: any(is_context(kind) for kind in alternatives(hints.get(each.name))))
    if marks.signature:
        assign("signature", lambda each: _is_signature(hints.get(each.name)))
    assign("ctx", lambda each: each.name in _CONTEXT_NAMES and hints.get(each.name, Any) is Any)
    if marks.signature:
        assign("signature", lambda each: each.name in _SIGNATURE_NAMES)
    return roles


def _plan(
    parameters: list[inspect.Parameter], roles: dict[str, Role], wanted: list[Role], *, has_varargs: bool
) -> Binding:
    positional: list[Role] = []
    keyword: list[tuple[str, Role]] = []
    is_contiguous = True
    for each in parameters:
        role = roles.get(each.name)
        if role is None:
            is_contiguous = False  # Hatchet or its default fills it: the parameters after it are passed by name
        elif each.kind is inspect.Parameter.POSITIONAL_ONLY or (
            is_contiguous and each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        ):
            positional.append(role)
        else:
            keyword.append((each.name, role))
    if has_varargs:
        # Hatchet passes the context too, so *args gets it.
        order: tuple[Role, ...] = ("message", "ctx", "signature")
        assigned = set(roles.values())
        positional.extend(each for each in order if (each in wanted or each == "ctx") and each not in assigned)
    message_name = next((name for name, role in roles.items() if role == "message"), "")
    return Binding(tuple(positional), tuple(keyword), message_name)


def _unfilled(name: str, annotation: object, params: AcceptParams, is_message: Callable[[object], bool]) -> str:
    problem = f"the parameter {name!r} gets no argument"
    if _is_signature(annotation):
        return f"{problem}: write @client.with_signature between @client.task and the function"
    if params is AcceptParams.CTX_ONLY and is_message(annotation):
        return f"{problem}: this client passes no message (AcceptParams.CTX_ONLY), remove it"
    return f"{problem}: give it a default, or write {name}: Annotated[..., Depends(...)]"


def _missing(role: Role, name: str, params: AcceptParams) -> tuple[str, str, str]:
    if role == "message":
        return "task", name, "the message needs a parameter: write async def task(msg: MyModel)"
    if role == "signature":
        return (
            "with_signature",
            name,
            "the signature needs a parameter: write async def task(msg: MyModel, signature: TaskSignature)",
        )
    if params is AcceptParams.NO_CTX:
        return "with_ctx", name, "the context needs a parameter: write async def task(msg: MyModel, ctx: Context)"
    example = "async def task(ctx: Context)" if params is AcceptParams.CTX_ONLY else "async def task(msg, ctx: Context)"
    return (
        "task",
        name,
        f"this client passes the context to every task (AcceptParams.{params.name}): write {example}",
    )
