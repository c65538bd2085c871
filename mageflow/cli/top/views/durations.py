"""Short lengths of time."""

from mageflow.cli.console import span

__all__ = ["short"]


def short(seconds: float) -> str:
    """A length of time, such as ``4 ms``, ``1.2 s`` or ``3 min 5 s``."""
    return f"{max(seconds, 0.0) * 1000:.0f} ms" if seconds < 1 else span(seconds)
