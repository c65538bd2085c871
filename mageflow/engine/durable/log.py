"""The log of one durable task, which every invocation replays.

An entry is found by (branch, node). A node is the position of a wait, a spawn or a memo in the task's code, counted
from 1 in each invocation. A branch begins at a node of its parent branch, and the nodes before it belong to the parent:
a task that is reset at node 3 replays 1 and 2 and executes 3 again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum

from mageflow.engine.durable.waits import WaitCondition
from mageflow.engine.model import Task
from mageflow.errors import EngineError


class EntryKind(Enum):
    """What the task requested."""

    RUN = "run"
    WAIT = "wait"
    MEMO = "memo"


class NonDeterminismError(EngineError):
    """The task's code requests something else than its log has at this node.

    Attributes:
        branch: branch of the entry in the log.
        node: node of the entry in the log.
    """

    def __init__(self, entry: Entry, requested: EntryKind) -> None:
        super().__init__(
            f"non-determinism detected at node {entry.node}: the log has a {entry.kind.value} that differs from the "
            f"{requested.value} the code asks for now; a durable task must do the same things in the same order"
        )
        self.branch = entry.branch
        self.node = entry.node


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One wait, spawn or memo, and its result once it is satisfied."""

    task: Task
    kind: EntryKind
    branch: int
    node: int
    fingerprint: bytes
    satisfied: bool = False
    payload: bytes = b""
    error: str | None = None
    child_id: str = ""
    conditions: list[WaitCondition] = field(default_factory=list[WaitCondition])


@dataclass(frozen=True, slots=True)
class Branch:
    """A line of the log, and the node at which it leaves its parent."""

    id: int
    parent: int | None
    first_node: int


@dataclass(slots=True, kw_only=True, eq=False)
class DurableLog:
    """Entries, branches, and what was delivered in the current invocation.

    Attributes:
        active: the branch that the task runs on.
        node: the last node that the current invocation has reached.
        spawns: entries of child runs by child key or index.
        order: entries in the order of their first delivery over all invocations, with their position from 1.
        kept: how many entries of ``order`` were delivered in this invocation, without a gap.
        waiting: entries that the worker has declared as waited for in this invocation.
        ready: those of them that are satisfied and not delivered.
        delivered: entries sent in this invocation, with the time in seconds of the clock's ``monotonic``.
        order_fallback: timer that drops the order, set while an entry waits for one before it.
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
        """Begin again at node 0. Satisfied entries stay satisfied."""
        self.node = self.kept = 0
        self.waiting.clear()
        self.ready.clear()
        self.delivered.clear()
        self.cancel_fallback()

    def cancel_fallback(self) -> None:
        """Stop the timer that drops the order."""
        if self.order_fallback is not None:
            self.order_fallback.cancel()
            self.order_fallback = None

    def resolve(self, node: int) -> Entry | None:
        """Return the entry at a node, as seen from the active branch."""
        branch = self.branches[self.active]
        while branch.parent is not None and node < branch.first_node:
            branch = self.branches[branch.parent]
        return self.entries.get((branch.id, node))

    def is_active(self, entry: Entry) -> bool:
        """Whether the active branch sees this entry."""
        return self.resolve(entry.node) is entry

    def next_entry(self, kind: EntryKind, fingerprint: bytes) -> tuple[Entry, bool]:
        """Go to the next node; return its entry, and whether the entry is new.

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

        Args:
            key: child key or index.
            fingerprint: what is spawned; None compares nothing.

        Raises:
            NonDeterminismError: the earlier spawn was of something else.
        """
        entry = self.spawns.get(key)
        if entry is None or not self.is_active(entry):
            return None
        if fingerprint is not None and entry.fingerprint != fingerprint:
            raise NonDeterminismError(entry, EntryKind.RUN)
        self.node = max(self.node, entry.node)
        return entry

    def branch_off(self, parent: int, first_node: int) -> int:
        """Begin a branch at a node of its parent and make it active; return its id."""
        branch = Branch(max(self.branches) + 1, parent, first_node)
        self.branches[branch.id] = branch
        self.active = branch.id
        active = (entry for entry in self.order if self.is_active(entry))
        self.order = {entry: number for number, entry in enumerate(active, 1)}
        self.kept = 0
        return branch.id
