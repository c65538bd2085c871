"""Compares an exported copy with the files of this release."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mageflow.dashboards.bundle import Bundle
from mageflow.dashboards.kubernetes import kubernetes_manifests
from mageflow.dashboards.objective import objective_of, with_objective

_LABEL: Final = re.compile(r'^ +"[^"]+": "[^"]*"\n', re.MULTILINE)
"""A label that the user has chosen, as the manifests have it. Their own keys are not in quotes."""


def differences(bundle: Bundle, other: Path) -> list[str]:
    """Compare a directory with the bundle; get one line per file that is missing or changed.

    The manifests in its folder ``kubernetes`` are compared too, if it has one of them. Another objective of the error
    budget alerts, and other labels of the manifests, are settings, not changes.
    """
    return [*_changed_files(bundle, other), *_changed_manifests(bundle, other)]


def _changed_files(bundle: Bundle, other: Path) -> Iterator[str]:
    for relative in bundle.files():
        copy = other / relative
        if not copy.is_file():
            yield f"{relative} is missing"
        elif copy.read_bytes() != _expected(bundle.root / relative, copy):
            yield _different(relative)


def _expected(shipped: Path, copy: Path) -> bytes:
    """The shipped content of a file, with the objective that the copy has."""
    content = shipped.read_bytes()
    objective = objective_of(copy.read_text(encoding="utf-8", errors="replace"))
    return content if objective is None else with_objective(content.decode(), objective).encode()


def _changed_manifests(bundle: Bundle, other: Path) -> Iterator[str]:
    manifests = kubernetes_manifests(bundle)
    if not any((other / "kubernetes" / name).is_file() for name in manifests):
        return
    for name, text in manifests.items():
        relative = Path("kubernetes", name)
        if not (other / relative).is_file():
            yield f"{relative} is missing"
            continue
        found = (other / relative).read_text(encoding="utf-8", errors="replace")
        objective = objective_of(found)
        expected = text if objective is None else with_objective(text, objective)
        # Only boards have quoted keys of their own, and no labels that a user chooses.
        is_board = name.startswith("grafana-")
        if found != expected and (is_board or _LABEL.sub("", found) != _LABEL.sub("", expected)):
            yield _different(relative)


def _different(relative: Path) -> str:
    return f"{relative} differs from the one this version ships"
