"""A public docstring says what the signature cannot: it is read in an editor, where a pointer leads nowhere."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

import mageflow
from mageflow.telemetry.names import EVENTS, metrics, traces

DEFINITION = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
POINTER = re.compile(r"(?:^|[.;:(]\s+|\()[Ss]ee (?:also )?(?:`|the |there)|^As (?:`|for |above|the )")
"""In the summary of a docstring. Further down only a paragraph that begins so is one."""


@dataclass(frozen=True)
class Definition:
    """A module, class, function, method or attribute that a program can reach without a leading underscore."""

    module: str
    name: str
    docstring: str
    is_override: bool = False

    @property
    def is_pointer(self) -> bool:
        summary, *paragraphs = (" ".join(each.split()) for each in self.docstring.split("\n\n"))
        return POINTER.search(summary) is not None or any(each.startswith("See ") for each in paragraphs)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}".rstrip(".")


def is_public(name: str) -> bool:
    return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))


def decorated(node: DEFINITION, decorator: str) -> bool:
    return any(isinstance(each, ast.Name) and each.id == decorator for each in node.decorator_list)


def definitions(module: str, node: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[Definition]:
    """Every public definition in a module or class: nested classes and attributes included, inner functions not."""
    for child, words in zip_longest(node.body, node.body[1:]):
        if isinstance(child, ast.Assign | ast.AnnAssign) and isinstance(words, ast.Expr):
            target = child.target if isinstance(child, ast.AnnAssign) else child.targets[0]
            if isinstance(target, ast.Name) and is_public(target.id) and isinstance(words.value, ast.Constant):
                yield Definition(module, f"{prefix}{target.id}", inspect.cleandoc(str(words.value.value)))
        if isinstance(child, DEFINITION) and is_public(child.name):
            name = f"{prefix}{child.name}"
            yield Definition(module, name, ast.get_docstring(child) or "", decorated(child, "override"))
            if isinstance(child, ast.ClassDef):
                yield from definitions(module, child, f"{name}.")


def public(root: Path) -> list[Definition]:
    """Every public definition of the package, and the modules themselves."""
    found: list[Definition] = []
    for path in sorted((root / "mageflow").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if all(is_public(part) for part in parts):
            module = ".".join(part for part in parts if part != "__init__")
            tree = ast.parse(path.read_text())
            found.append(Definition(module, "", ast.get_docstring(tree) or ""))
            found += definitions(module, tree)
    return found


def test_a_pointer_is_recognised():
    """The forms it has had here, and sentences that only look like one."""
    pointers = ["See `Interceptor.attempt`.", "Make a worker; see `Hatchet.worker`.", "As `load`, with the result."]
    whole = ["Let the SDK see ``Depends``.", "A step as it was seen.", "As many places as are free."]

    assert all(Definition("m", "n", each).is_pointer for each in [*pointers, "Store it.\n\nSee `Flows.sign`."])
    assert not any(Definition("m", "n", each).is_pointer for each in whole)


def test_no_public_docstring_is_a_pointer(root: Path):
    """What overrides a method has no docstring of its own and inherits one (``@override``)."""
    found = public(root)

    assert len(found) > 1500
    assert [str(each) for each in found if each.is_pointer] == []


def test_what_overrides_inherits_a_docstring(root: Path):
    """``help()`` of a method that has none of its own shows that of the class or Protocol above."""
    inherited = [each for each in public(root) if each.is_override and not each.docstring]
    without = []
    for each in inherited:
        owner = importlib.import_module(each.module)
        for part in each.name.split("."):
            owner = getattr(owner, part)
        if not inspect.getdoc(owner):
            without.append(str(each))

    assert inherited
    assert without == []


def sections(docstring: str) -> dict[str, str]:
    """The text of each section of a Google-style docstring, by its title."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Yields):$", docstring, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def methods_of_the_client() -> list[str]:
    """What a program calls on a client that is mageflow's own, or that mageflow has changed."""
    own = {name for base in mageflow.Mageflow.__mro__ if base.__module__.startswith("mageflow") for name in vars(base)}
    aliases = {"asign", "achain", "aswarm"}
    return sorted(name for name in own - aliases if not name.startswith("_") and callable(vars_of(name)))


def vars_of(name: str) -> object:
    return getattr(mageflow.Mageflow, name)


@pytest.mark.parametrize("name", methods_of_the_client())
def test_methods_of_the_client_are_documented_whole(name: str):
    """Every parameter is explained, and what comes back; keywords of the SDK are listed under ``options``."""
    method = vars_of(name)
    found = sections(inspect.getdoc(method) or "")
    code = inspect.unwrap(method).__code__ if hasattr(method, "__code__") else method.__func__.__code__
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    parameters = code.co_varnames[: count + bool(code.co_flags & inspect.CO_VARKEYWORDS)]
    unexplained = [
        each
        for each in parameters
        if each not in {"self", "cls"} and not re.search(rf"^ +{each}: ", found.get("Args", ""), re.MULTILINE)
    ]

    assert unexplained == []
    assert "Returns" in found or name == "aclose"


def test_every_signal_in_a_docstring_exists(root: Path):
    """A metric, span attribute or log event that a docstring promises is in the dictionary of signals."""
    known = {each.name for each in metrics.METRICS}
    dotted = {*traces.ATTRIBUTES, *traces.SPAN_EVENTS, *(each.name for each in EVENTS)}
    text = "\n".join(each.docstring for each in public(root))
    named = set(re.findall(r"``(mageflow_\w+_(?:total|seconds|bytes|ratio))(?:\{.*?\})?``", text))
    others = set(re.findall(r"``(mageflow\.[a-z_]+\.[a-z_.]+)``", text))

    assert min(len(named), len(others & dotted)) > 5
    assert named - known == set()
    assert {name for name in others - dotted if not resolves(name)} == set()


def resolves(dotted: str) -> bool:
    """Whether it names a module or something in one."""
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        try:
            return hasattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            return False
    return True


def test_a_call_that_needs_redis_says_what_it_raises_without():
    """Every public method that makes a round trip names the error of a Redis that is away."""
    documented = {
        f"{name}.{method}": inspect.getdoc(getattr(owner, method)) or ""
        for name in mageflow.__all__
        if isinstance(owner := getattr(mageflow, name), type)
        for method in dir(owner)
        if not method.startswith("_") and callable(getattr(owner, method))
    }
    calls = {name: text for name, text in documented.items() if re.search(r"(?<![Nn]o) round trips?\b", text)}
    other = {"Mageflow.exclusive", "HatchetMageflow.exclusive", "Interceptor.redis"}  # a decorator, and a hook

    assert len(calls) > 30
    assert {name for name, text in calls.items() if "StoreUnavailableError" not in text} <= other
