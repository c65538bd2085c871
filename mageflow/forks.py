"""What objects do in a forked child, where the threads and event loops of the parent do not run.

``os.fork``, `multiprocessing` with the start method ``fork`` and servers that load a program before they fork make such
children. Python still calls the loops of the parent running there: what waits for one of them waits for ever.
"""

import itertools
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakMethod

__all__ = ["when_forked"]

_methods: dict[int, WeakMethod[Callable[[], Any]]] = {}
_numbers = itertools.count()


def when_forked(method: Callable[[], Any]) -> None:
    """Call a bound method in every forked child, before the program goes on there. Its object may be collected.

    The method must not destroy what belongs to the parent, but keep it: the destructors of loops and connections would
    take them out of the parent's ``epoll``, which both processes share.
    """
    number = next(_numbers)
    _methods[number] = WeakMethod(method, lambda _: _methods.pop(number, None))


def _begin_in_child() -> None:
    for each in list(_methods.values()):
        method = each()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_begin_in_child)
