"""`Event`, the base of everything that is reported once, when it has happened.

An event is a dataclass that inherits from `Event`. It needs no method on `Interceptor`: `Interceptor.event` gets
events of every type, and an interceptor selects by type.
"""

from mageflow._frozen import frozen

__all__ = ["Event", "InterceptorFailed"]


class Event:
    """Something that happened. There is nothing to wrap: `Interceptor.event` gets it once."""

    __slots__ = ()


@frozen
class InterceptorFailed(Event):
    """An interceptor raised. The operation it observed went on without it."""

    interceptor: str
    """Name of the interceptor's class."""
    hook: str
    """Name of the method that raised, for example ``attempt``."""
    error: Exception
