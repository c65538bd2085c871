"""What ``mageflow tail`` reports."""

from dataclasses import dataclass

__all__ = ["TailFilter"]


@dataclass(frozen=True, slots=True)
class TailFilter:
    """At most one of these; none for everything.

    Attributes:
        task: Only this task.
        flow: Only chains and swarms of this name.
        key: Only this record or member, with everything that is stored of it.
    """

    task: str | None = None
    flow: str | None = None
    key: str | None = None

    @property
    def is_ambiguous(self) -> bool:
        """Whether more than one is given."""
        return sum(each is not None for each in (self.task, self.flow, self.key)) > 1
