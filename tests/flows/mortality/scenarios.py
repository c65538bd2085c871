"""How each flow must end, whoever died: every member's status, and what callbacks were told."""

from dataclasses import dataclass, field
from typing import Any

Tree = dict[str, Any]
"""``status`` of a record, ``members`` by path: a status, or the tree of the nested flow."""


def tree(status: str, **members: Any) -> Tree:
    """Paths as keyword arguments: ``_0`` for ``0``, ``_0_s0`` for ``0.s0``, ``_s0`` for ``.s0``, ``at`` for a run."""
    return {"status": status, "members": {_path(name): value for name, value in members.items()}}


def _path(name: str) -> str:
    if name.startswith("at"):
        return "@" + name.removeprefix("at").replace("_", ".")
    digits, mark, rest = name.removeprefix("_").partition("_")
    return f"{digits}{'.' if mark else ''}{rest}" if digits.isdigit() else f".{name.removeprefix('_')}"


@dataclass(frozen=True)
class Scenario:
    """What a flow must come to.

    Attributes:
        expected: Every member that must be there, and none else.
        results: Results by path of the flow itself; for error callbacks the type of the error they were given.
        also: Types of error that are right as well: a worker that died cannot tell of its own timeout.
        help: What it needs from outside while it runs: ``wake`` when it is suspended, ``stop`` when ``long`` runs.
    """

    name: str
    expected: Tree
    results: dict[str, Any] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    help: str = ""


def told(value: Any) -> dict[str, Any]:
    return {"told": value}


def warned(kind: str) -> dict[str, Any]:
    return {"type": kind}


def n(value: int) -> dict[str, int]:
    return {"n": value}


SCENARIOS = (
    Scenario(
        "chain",
        tree("done", _0="done", _1="done", _2="done", _0_s0="done", _s0="done"),
        {"0": n(1), "1": n(2), "2": n(3), "0.s0": told(n(1)), ".s0": told(n(3))},
    ),
    Scenario(
        "failing chain", tree("failed", _0="done", _1="failed", _e0="done"), {"0": n(1), ".e0": warned("ValueError")}
    ),
    Scenario(
        "chain with a timeout",
        tree("failed", _0="done", _1="failed", _e0="done"),
        {".e0": warned("TaskTimedOut")},
        also=("WorkerLost",),
    ),
    Scenario(
        "swarm",
        tree("done", _0="done", _1="done", _2="done", _3="done", _4="done", _5="failed", _s0="done"),
        {".s0": told([n(1)] * 5 + [None])},
    ),
    Scenario("failing swarm", tree("failed", _0="failed", _1="interrupted", _e0="done"), {".e0": warned("ValueError")}),
    Scenario(
        "growing swarm",
        tree("done", _0="done", _1="done", _2="done", _3="done", _s0="done"),
        {".s0": told([n(1), n(1), n(1), n(11)])},
    ),
    Scenario(
        "swarm in chain",
        tree(
            "done",
            _0="done",
            _1=tree("done", _0="done", _1="done", _2="done", _s0="done"),
            _2="done",
            _s0="done",
            _s1=tree("done", _0="done", _1="done"),
        ),
        {"1": [n(2)] * 3, "2": n(6), ".s0": told(n(6)), ".s1": n(8)},
    ),
    Scenario(
        "chain in swarm",
        tree(
            "done",
            _0=tree("done", _0="done", _1="done"),
            _1=tree("failed", _0="done", _1="failed", _e0="done"),
            _2="done",
            _s0="done",
        ),
        {".s0": told([n(2), None, n(1)])},
    ),
    Scenario(
        "suspended chain",
        tree("done", _0="done", _1="done", _2="done", _s0="done"),
        {"2": n(3), ".s0": told(n(3))},
        help="wake",
    ),
    Scenario(
        "chain suspended before",
        tree("done", _0="done", _1="done", _s0="done"),
        {"1": n(2), ".s0": told(n(2))},
        help="wake",
    ),
    Scenario(
        "suspended nest",
        tree("done", _0=tree("done", _0="done", _1="done", _2="done", _3="done"), _1="done", _s0="done"),
        {"0": [n(1)] * 4, "1": n(4), ".s0": told(n(4))},
        help="wake",
    ),
    Scenario(
        "interrupted chain",
        tree("interrupted", _0="done", _1="interrupted", _e0="done"),
        {".e0": warned("TaskInterrupted")},
        help="stop",
    ),
    Scenario(
        "interrupted nest",
        tree("interrupted", _0=tree("interrupted", _0="interrupted", _1="interrupted"), _e0="done"),
        {".e0": warned("TaskInterrupted")},
        help="stop",
    ),
    Scenario("signature", tree("done", at="done", at_s0="done"), {"@": n(1), "@.s0": told(n(1))}),
    Scenario("failing signature", tree("failed", at="failed", at_e0="done"), {"@.e0": warned("ValueError")}),
)
