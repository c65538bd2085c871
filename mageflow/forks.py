"""What objects do in a forked child, where the threads and event loops of the parent do not run.

``os.fork``, `multiprocessing` with the start method ``fork`` and servers that load a program before they fork make such
children. Python still calls the loops of the parent running there: what waits for one of them waits for ever.
"""

import itertools
import os
from collections.abc import Callable
from types import MethodType
from typing import Any, cast
from weakref import ref

__all__ = ["when_forked"]

_methods: dict[int, tuple[ref[object], Callable[[Any], Any]]] = {}
"""By number: the object, and the function of its method. A `weakref.WeakMethod` prints errors at interpreter exit."""
_numbers = itertools.count()


def when_forked(method: Callable[[], Any]) -> None:
    """Call a bound method in every forked child, before the program goes on there. Its object may be collected.

    The method must not destroy what belongs to the parent, but keep it: the destructors of loops and connections would
    take them out of the parent's ``epoll``, which both processes share.
    """
    bound = cast("MethodType", method)
    number = next(_numbers)
    forget = _methods.pop  # at exit the names of this module are gone before the last objects
    _methods[number] = ref(bound.__self__, lambda _: forget(number, None)), bound.__func__


def _begin_in_child() -> None:
    for owner, function in list(_methods.values()):
        found = owner()
        if found is not None:
            function(found)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_begin_in_child)
