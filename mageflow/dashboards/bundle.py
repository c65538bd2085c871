"""Finds the dashboards, rules and runbook of this installation, copies them, and compares a copy with them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mageflow.dashboards.objective import with_objective

CONTENTS = ("README.md", "grafana", "prometheus-local.yml", "provisioning", "rules", "runbook.md")
"""The files and folders of the bundle. The wheel carries exactly these (``force-include`` in pyproject.toml)."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files that ``mageflow dashboards export`` copies, below one directory."""

    root: Path

    @property
    def boards(self) -> tuple[Path, ...]:
        """The dashboards' JSON files, sorted by name."""
        return tuple(sorted((self.root / "grafana").glob("*.json")))

    @property
    def rules(self) -> tuple[Path, ...]:
        """The rule files for Prometheus, sorted by name."""
        return tuple(sorted((self.root / "rules").glob("*.yml")))

    def files(self) -> Iterator[Path]:
        """Every file, relative to the root, sorted by name."""
        for part in CONTENTS:
            path = self.root / part
            found = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            yield from (each.relative_to(self.root) for each in found)


def find_bundle() -> Bundle:
    """The bundle of this installation: inside the package if installed from a wheel, ``dashboards/`` in a checkout.

    Raises:
        FileNotFoundError: The installation has no dashboards.
    """
    here = Path(__file__).parent
    for root in (here / "bundle", here.parents[1] / "dashboards"):
        if (root / "grafana").is_dir():
            return Bundle(root)
    raise FileNotFoundError(f"no dashboards in {here}: install the wheel, or run from a checkout of the repository")


def export(bundle: Bundle, target: Path, *, objective: str | None = None) -> list[Path]:
    """Copy the bundle into a directory and get the files written, relative to it.

    The directory is created if it does not exist. Files of the same name are overwritten; others are not touched.

    Args:
        bundle: The files to copy.
        target: The directory.
        objective: The objective of the error budget alerts, from 0 to 1 in decimal notation; as shipped if None.

    Raises:
        OSError: The directory cannot be written.
    """
    written: list[Path] = []
    for relative in bundle.files():
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.root / relative, destination)
        if objective is not None and relative.parts[0] == "rules":
            text = destination.read_text(encoding="utf-8")
            destination.write_text(with_objective(text, objective), encoding="utf-8", newline="\n")
        written.append(relative)
    return written
