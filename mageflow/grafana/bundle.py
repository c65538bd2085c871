"""Where the generated files are, in a checkout and in an installed package, and how to take a copy of them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Bundle:
    """The generated files: dashboards, rules, provisioning, data sources, runbook and the files of the stack."""

    root: Path

    @property
    def boards(self) -> tuple[Path, ...]:
        """The dashboards' JSON files, in order of name."""
        return tuple(sorted((self.root / "grafana").glob("*.json")))

    @property
    def rules(self) -> tuple[Path, ...]:
        """The rule files for Prometheus, in order of name."""
        return tuple(sorted((self.root / "rules").glob("*.yml")))

    def files(self) -> Iterator[Path]:
        """Every file, relative to the root, in order of name."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(self.root)


def find_bundle() -> Bundle:
    """The bundle of this installation: inside the package when it comes from a wheel, beside it in a checkout.

    Raises:
        FileNotFoundError: The package was installed without its dashboards.
    """
    package = Path(__file__).parents[1]
    for root in (package / "dashboards", package.parent / "dashboards"):
        if (root / "grafana").is_dir():
            return Bundle(root)
    raise FileNotFoundError(
        f"no dashboards beside {package}: install the wheel, or run from a checkout of its repository"
    )


def export(bundle: Bundle, target: Path) -> list[Path]:
    """Copy the bundle into a directory, which is made if need be, and get the files written, relative to it.

    Files of the same name are overwritten; others are left alone.

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
    """How a directory differs from the bundle, one line per file that is missing or changed."""
    found: list[str] = []
    for relative in bundle.files():
        copy = other / relative
        if not copy.is_file():
            found.append(f"{relative} is missing")
        elif copy.read_bytes() != (bundle.root / relative).read_bytes():
            found.append(f"{relative} differs from the one this version ships")
    return found
