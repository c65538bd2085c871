"""The mageflow of another commit beside this one, in one run: ``python -m tests.benchmarks --beside REVISION``.

The programs of the benchmarks stay those of this checkout. A measured process finds the other package first on its
path. Both take turns, so that what the machine does meanwhile hits both. A part that does not run with the other
package has no numbers of it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

ROOT: Final = Path(__file__).parent.parent.parent


class OtherPackage(NamedTuple):
    """The package that is measured beside this one."""

    name: str
    """Short hash of its commit; the name of its folder where there is none."""
    folder: Path
    """Has ``mageflow`` and nothing else."""


@contextmanager
def other_package(given: str) -> Generator[OtherPackage]:
    """The package of a commit of this repository, or of a folder that has ``mageflow``.

    Raises:
        SystemExit: It is neither.
    """
    with tempfile.TemporaryDirectory() as created:
        folder, source = Path(created), Path(given, "mageflow")
        if source.is_dir():
            (folder / "mageflow").symlink_to(source.resolve())
            yield OtherPackage(_short_hash(Path(given), "HEAD") or Path(given).resolve().name, folder)
            return
        name = _short_hash(ROOT, given)
        if not name:
            raise SystemExit(f"{given} is neither a commit of this repository nor a folder that has mageflow")
        archive = subprocess.run(["git", "archive", name, "mageflow"], cwd=ROOT, check=True, capture_output=True)
        subprocess.run(["tar", "-x"], cwd=folder, check=True, input=archive.stdout)
        yield OtherPackage(name, folder)


def _short_hash(repository: Path, revision: str) -> str:
    """Empty if there is no such commit, or if the folder is only a part of a repository."""

    def git(*arguments: str) -> str:
        command = ["git", "rev-parse", *arguments]
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    if git("--show-toplevel") != str(repository.resolve()):
        return ""
    return git("--short", "--verify", "--quiet", f"{revision}^{{commit}}")


def environment_of(folder: Path | str | None) -> dict[str, str]:
    """Variables for a process that is to use the package in a folder; none for this checkout's own."""
    if folder is None:
        return {}
    path = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # With `python -m`, the working folder would come before the path.
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def run(part: str, options: Sequence[str], folder: Path | None = None) -> Any:
    """The JSON of one benchmark, which runs in a process of its own."""
    command = [sys.executable, "-m", f"tests.benchmarks.bench_{part}", "--json", *options]
    environment = {**os.environ, **environment_of(folder)}
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def run_beside(part: str, options: Sequence[str], folder: Path, turns: int) -> tuple[Any, Any]:
    """What a benchmark finds with this package and with the other one: the medians of all turns.

    Returns:
        Both JSONs. The second is None if the benchmark does not run with the other package.
    """
    own: list[Any] = []
    other: list[Any] = []
    places: list[Path | None] = [folder, None]
    for turn in range(turns):
        for place in places if turn % 2 == 0 else places[::-1]:
            if place is None:
                own.append(run(part, options))
                continue
            try:
                other.append(run(part, options, place))
            except subprocess.CalledProcessError:
                print(f"the part {part} does not run with the other package", file=sys.stderr)
                places, other = [None], []
    return medians(own), medians(other) if other else None


def medians(found: Sequence[Any]) -> Any:
    """One JSON from several of the same shape: each number is the median of its place."""
    first = found[0]
    if isinstance(first, Mapping):
        shape = cast("Mapping[str, Any]", first)
        return {name: medians([each[name] for each in found]) for name in shape}
    return statistics.median(found) if isinstance(first, int | float) else first
