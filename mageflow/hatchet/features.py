"""What the installed SDK lacks of the newest one, and what stands in for it.

The oldest SDK that works is `OLDEST_SDK`. What it has under another name is in ``sdk_names``. Nothing here is raised
or made by an SDK that lacks it, so an absent class becomes one without instances.
"""

import inspect
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from mageflow.did_you_mean import hint
from mageflow.errors import SdkFeatureError

if TYPE_CHECKING:
    from hatchet_sdk.exceptions import BulkTriggerIdempotencyCollisionError, IdempotencyCollisionError
    from hatchet_sdk.runnables.eviction import EvictionPolicy
    from hatchet_sdk.runnables.types import BatchMemberId
    from hatchet_sdk.types.idempotency import StatusBasedIdempotencyConfig, TTLBasedIdempotencyConfig
    from hatchet_sdk.worker.action_listener_process import QueuedBatchActionEvent

__all__ = [
    "OLDEST_SDK",
    "BatchMemberId",
    "BulkTriggerIdempotencyCollisionError",
    "EvictionPolicy",
    "IdempotencyCollisionError",
    "QueuedBatchActionEvent",
    "StatusBasedIdempotencyConfig",
    "TTLBasedIdempotencyConfig",
    "method_of",
    "refuse_absent",
]

OLDEST_SDK: Final = "1.29.0"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(".") if each.isdecimal())


def _require_oldest() -> None:
    installed = version("hatchet-sdk")
    if _numbers(installed) < _numbers(OLDEST_SDK):
        raise ImportError(
            f"mageflow needs hatchet-sdk {OLDEST_SDK} or newer, and {installed} is installed: "
            "pip install --upgrade hatchet-sdk"
        )


_require_oldest()


def _absent(name: str) -> type[Exception]:
    return type(name, (Exception,), {"__doc__": "The installed SDK has no such class, so nothing is one of these."})


def _found(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return _absent(name)


if not TYPE_CHECKING:
    BatchMemberId = _found("hatchet_sdk.runnables.types", "BatchMemberId")
    BulkTriggerIdempotencyCollisionError = _found("hatchet_sdk.exceptions", "BulkTriggerIdempotencyCollisionError")
    EvictionPolicy = _found("hatchet_sdk.runnables.eviction", "EvictionPolicy")
    IdempotencyCollisionError = _found("hatchet_sdk.exceptions", "IdempotencyCollisionError")
    QueuedBatchActionEvent = _found("hatchet_sdk.worker.action_listener_process", "QueuedBatchActionEvent")
    StatusBasedIdempotencyConfig = _found("hatchet_sdk.types.idempotency", "StatusBasedIdempotencyConfig")
    TTLBasedIdempotencyConfig = _found("hatchet_sdk.types.idempotency", "TTLBasedIdempotencyConfig")


def method_of(owner: type[Any], name: str) -> Callable[..., Any]:
    """A method of a class of the SDK; where it is absent, a function that raises.

    The function that stands in raises `SdkFeatureError`.
    """
    found = getattr(owner, name, None)
    if found is not None:
        return found

    def absent(*_: object, **__: object) -> Any:
        raise SdkFeatureError(f"{owner.__name__}.{name}", version("hatchet-sdk"))

    return absent


def refuse_absent(method: Callable[..., Any], known: Iterable[str], given: Iterable[str]) -> None:
    """Refuse keywords that newer SDKs take and the installed one does not, and those that none takes.

    Args:
        method: The method of the SDK.
        known: The keywords of the newest SDK.
        given: The keywords of the caller.

    Raises:
        SdkFeatureError: The installed SDK lacks one of them.
        TypeError: No SDK takes one of them. It names the nearest that is taken.
    """
    taken = inspect.signature(method).parameters
    known = set(known)
    if unknown := [name for name in given if name not in known and name not in taken]:
        nearest = hint(unknown[0], [name for name in taken if name != "self"])
        raise TypeError(f"{method.__qualname__}() got an unexpected keyword argument {unknown[0]!r}{nearest}")
    if absent := [name for name in given if name in known and name not in taken]:
        raise SdkFeatureError(f"the option {absent[0]!r} of {method.__qualname__}", version("hatchet-sdk"))
