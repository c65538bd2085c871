"""`frozen`: a dataclass with ``frozen=True, slots=True`` that costs an import less than half of the usual one.

``dataclass`` compiles six methods for each such class, about 0.5 ms with Python 3.11, and a client with a Redis loads a
hundred such classes. Here one method is compiled, ``__init__``; all classes share the others. The class is a dataclass:
``fields``, ``replace``, ``asdict``, ``match`` and type checkers know it. This module imports nothing of mageflow.
"""

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, Final, TypeVar, dataclass_transform, overload

__all__ = ["frozen"]

Class = TypeVar("Class")


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[Class], /) -> type[Class]: ...


@overload
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool) -> Callable[[type[Class]], type[Class]]: ...


def frozen(cls: type[Any] | None = None, /, *, kw_only: bool = False) -> Any:
    """Make a dataclass with slots whose instances do not change, are equal by value and have a hash.

    Fields, defaults, ``field(...)``, ``__post_init__`` and inheritance work as with ``dataclass``. A method that the
    class defines itself stays. ``InitVar`` is not supported.

    Args:
        cls: The class.
        kw_only: All its fields are keyword-only.
    """
    if cls is None:
        return lambda decorated: _make(decorated, kw_only=kw_only)  # pyright: ignore[reportUnknownLambdaType] any class
    return _make(cls, kw_only=kw_only)


def _make(cls: type[Any], *, kw_only: bool) -> type[Any]:
    own = vars(cls)
    shared = {name: method for name, method in _METHODS.items() if name not in own}
    if "__eq__" in own and own.get("__hash__") is not None:  # a class with __eq__ alone has None there
        shared.pop("__hash__", None)
    is_derived = hasattr(cls, "__dataclass_fields__")  # only a frozen class may inherit from a frozen one
    made = dataclass(init=False, repr=False, eq=False, frozen=is_derived, slots=True, kw_only=kw_only)(cls)
    made.__dataclass_params__.eq = made.__dataclass_params__.frozen = True
    compared = [each.name for each in fields(made) if each.compare]
    shared["_compared_values"] = attrgetter(*compared) if compared else staticmethod(_no_values)
    shared["__init__"] = _initializer(made)
    for name, value in shared.items():
        setattr(made, name, value)
    return made


def _initializer(made: type[Any]) -> Callable[..., None]:
    """Compile ``__init__``. It sets slots by their descriptors, which ``__setattr__`` does not stop."""
    names: dict[str, Any] = {"MISSING": MISSING}
    positional, by_keyword, lines = ["self"], [], []
    for each in fields(made):
        name, value = each.name, each.name
        parameter = name
        names[f"_set_{name}"] = getattr(made, name).__set__
        if each.default is not MISSING:
            names[f"_default_{name}"] = each.default
            parameter = f"{name}=_default_{name}"
            value = name if each.init else f"_default_{name}"
        elif each.default_factory is not MISSING:
            names[f"_make_{name}"] = each.default_factory
            parameter = f"{name}=MISSING"
            value = f"{name} if {name} is not MISSING else _make_{name}()" if each.init else f"_make_{name}()"
        elif not each.init:
            continue
        if each.init:
            (by_keyword if each.kw_only else positional).append(parameter)
        lines.append(f" _set_{name}(self, {value})")
    if hasattr(made, "__post_init__"):
        lines.append(" self.__post_init__()")
    if by_keyword:
        by_keyword.insert(0, "*")
    source = f"def __init__({', '.join([*positional, *by_keyword])}):\n" + ("\n".join(lines) or " pass")
    exec(source, names)  # noqa: S102 - the source has names of fields only, as that of dataclasses
    initializer = names["__init__"]
    initializer.__qualname__ = f"{made.__qualname__}.__init__"
    initializer.__module__ = made.__module__
    initializer.__annotations__ = {each.name: each.type for each in fields(made) if each.init} | {"return": None}
    return initializer


def _no_values(_instance: Any) -> tuple[()]:
    return ()


def _equal(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._compared_values(self) == self._compared_values(other)


def _hash(self: Any) -> int:
    return hash(self._compared_values(self))


@recursive_repr()
def _repr(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_assignment(_self: Any, name: str, _value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(_self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for each, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "__eq__": _equal,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse_assignment,
    "__delattr__": _refuse_deletion,
    "__getstate__": _state,
    "__setstate__": _restore,
}
