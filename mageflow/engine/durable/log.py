"""The event log of one durable task: what every invocation replays.

An entry's place is (branch, node). A node is the position of a wait, spawn or memo in the task's code, counted from 1
in each invocation. A branch begins at a node of its parent branch: nodes before it resolve to the parent, so a task
reset at node 3 replays 1 and 2 and does 3 anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from mageflow.errors import EngineError

if TYPE_CHECKING:
    from mageflow.engine.durable.waits import WaitCondition
    from mageflow.engine.model import Task


class EntryKind(Enum):
    """What the task asked for."""

    RUN = "run"
    WAIT = "wait"
    MEMO = "memo"


class NonDeterminismError(EngineError):
    """The code asks for something else than its log says it did at this node.

    Attributes:
        branch: of the entry in the log.
        node: of the entry in the log.
    """

    def __init__(self, entry: Entry, asked: EntryKind) -> None:
        super().__init__(
            f"non-determinism detected at node {entry.node}: the log has a {entry.kind.value} that differs from the "
            f"{asked.value} the code asks for now; a durable task must do the same things in the same order"
        )
        self.branch = entry.branch
        self.node = entry.node


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One wait, spawn or memo and, once satisfied, its result."""

    task: Task
    kind: EntryKind
    branch: int
    node: int
    fingerprint: bytes
    satisfied: bool = False
    payload: bytes = b""
    error: str | None = None
    child_id: str = ""
    conditions: list[WaitCondition] = field(default_factory=list["WaitCondition"])


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of the log and where it leaves its parent."""

    id: int
    parent: int | None
    first_node: int


@dataclass(slots=True, kw_only=True, eq=False)
class DurableLog:
    """Entries, branches, and the delivery state of the current invocation.

    Attributes:
        node: how far the current invocation has come.
        order: entries in the order of their first delivery, over all invocations, with their place in it from 1.
        kept: how many of them were delivered in this invocation, without a gap.
        waiting: entries the worker has declared as waited for in this invocation.
        ready: those of them that are satisfied and not delivered yet.
        delivered: entries sent in this invocation, with the time by the loop's clock.
        order_fallback: runs when delivery is held back by an entry that may never be asked for again.
    """

    task: Task
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict[tuple[int, int], Entry])
    branches: dict[int, Branch] = field(default_factory=lambda: {1: Branch(1, None, 0)})
    active: int = 1
    node: int = 0
    spawns: dict[str, Entry] = field(default_factory=dict[str, Entry])
    order: dict[Entry, int] = field(default_factory=dict[Entry, int])
    kept: int = 0
    waiting: dict[Entry, None] = field(default_factory=dict[Entry, None])
    ready: dict[Entry, None] = field(default_factory=dict[Entry, None])
    delivered: dict[Entry, float] = field(default_factory=dict[Entry, float])
    order_fallback: asyncio.TimerHandle | None = None

    def begin_invocation(self) -> None:
        """Start over at node 0; what is satisfied stays so."""
        self.node = self.kept = 0
        self.waiting.clear()
        self.ready.clear()
        self.delivered.clear()
        self.cancel_fallback()

    def cancel_fallback(self) -> None:
        """Stop the fallback timer."""
        if self.order_fallback is not None:
            self.order_fallback.cancel()
            self.order_fallback = None

    def resolve(self, node: int) -> Entry | None:
        """Return the entry at a node as the active branch sees it."""
        branch = self.branches[self.active]
        while branch.parent is not None and node < branch.first_node:
            branch = self.branches[branch.parent]
        return self.entries.get((branch.id, node))

    def is_active(self, entry: Entry) -> bool:
        """Whether the active branch sees this entry."""
        return self.resolve(entry.node) is entry

    def next_entry(self, kind: EntryKind, fingerprint: bytes) -> tuple[Entry, bool]:
        """Go to the next node; return its entry and whether it is new.

        Raises:
            NonDeterminismError: the log has something else at this node.
        """
        self.node += 1
        found = self.resolve(self.node)
        if found is None:
            entry = Entry(task=self.task, kind=kind, branch=self.active, node=self.node, fingerprint=fingerprint)
            self.entries[entry.branch, entry.node] = entry
            return entry, True
        if found.kind is not kind or found.fingerprint != fingerprint:
            raise NonDeterminismError(found, kind)
        return found, False

    def spawned(self, key: str, fingerprint: bytes | None) -> Entry | None:
        """Return the entry of an earlier spawn under this key, if the active branch sees it.

        Raises:
            NonDeterminismError: it spawned something else; ``fingerprint`` None compares nothing.
        """
        entry = self.spawns.get(key)
        if entry is None or not self.is_active(entry):
            return None
        if fingerprint is not None and entry.fingerprint != fingerprint:
            raise NonDeterminismError(entry, EntryKind.RUN)
        self.node = max(self.node, entry.node)
        return entry

    def branch_off(self, parent: int, first_node: int) -> int:
        """Begin a branch and make it active; return its id."""
        branch = Branch(max(self.branches) + 1, parent, first_node)
        self.branches[branch.id] = branch
        self.active = branch.id
        active = (entry for entry in self.order if self.is_active(entry))
        self.order = {entry: number for number, entry in enumerate(active, 1)}
        self.kept = 0
        return branch.id
