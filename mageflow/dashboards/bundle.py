"""Finds the dashboards, rules and runbook of this installation, copies them, and compares a copy with them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def export(bundle: Bundle, target: Path) -> list[Path]:
    """Copy the bundle into a directory and get the files written, relative to it.

    The directory is created if it does not exist. Files of the same name are overwritten; others are not touched.

    Raises:
        OSError: The directory cannot be written.
    """
    written: list[Path] = []
    for relative in bundle.files():
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.root / relative, destination)
        written.append(relative)
    return written


def differences(bundle: Bundle, other: Path) -> list[str]:
    """Compare a directory with the bundle; get one line per file that is missing or changed."""
    found: list[str] = []
    for relative in bundle.files():
        copy = other / relative
        if not copy.is_file():
            found.append(f"{relative} is missing")
        elif copy.read_bytes() != (bundle.root / relative).read_bytes():
            found.append(f"{relative} differs from the one this version ships")
    return found
