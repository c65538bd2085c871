"""Runs the contract suite under several versions of hatchet-sdk, each in a new virtual environment.

``python -m tests.contract.sdk_matrix`` takes the oldest supported SDK, one between and the newest that the package
index has; ``--sdk 1.38.2`` takes others. The other dependencies are those of this environment. ``--write`` writes the
results to ``docs/compatibility.md``. With the oldest SDK the tests of signatures, chains and swarms run too.
``--beside-suite`` leaves out the SDK of this environment: the whole suite, which has the same tests, runs with it.

Without a package index nothing is run: it says so on standard error and ends with status 0, because a machine without a
network has shown nothing wrong. Any failure of a test ends with status 1, and so does a process that passes every test
and then dies at its exit: a user's program would too. Standard error has the place.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import venv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mageflow.hatchet.features import OLDEST_SDK

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
BETWEEN = "1.37.5"
NEWEST = "newest"

# The types and the private names of the newest SDK are written down once; an older SDK differs from them by design.
EVERY = ("tests/contract/test_end_to_end.py",)
NEWEST_ONLY = (
    "tests/contract/test_declarations.py",
    "tests/contract/test_declared_as_hatchet.py",
    "tests/contract/test_protocol.py",
    "tests/contract/test_sdk_private_names.py",
    "tests/contract/test_sdk_surface.py",
)
# What shows most of an SDK in little time. An SDK lacks the rest: a batch task, ``ctx.is_cancelled``.
OLDEST_ONLY = (
    "tests/integration/test_signatures.py",
    "--deselect=tests/integration/test_signatures.py::test_what_cannot_be_signed_is_refused_with_the_way_out",
    "--deselect=tests/integration/test_signatures.py::test_a_result_hatchet_throws_away_moves_no_flow_on",
)
_COUNT = re.compile(r"(\d+) (passed|failed|error)")
_TABLE = re.compile(r"(<!-- sdk matrix -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Result:
    """What one SDK did."""

    sdk: str
    passed: int
    failed: int
    seconds: float
    status: int
    """With which the process ended; negative for a signal."""
    lacks: str = ""
    released: str = ""

    @property
    def is_good(self) -> bool:
        """Whether tests ran, all of them passed, and the process ended without an error."""
        return bool(self.passed) and not self.failed and self.status == 0

    @property
    def outcome(self) -> str:
        """The counts, and the death of the process that no count shows."""
        counts = f"{self.passed} passed, {self.failed} failed"
        if self.failed or self.status == 0:
            return counts
        by = signal.Signals(-self.status).name if self.status < 0 else f"status {self.status}"
        return f"{counts}, then {by}"

    @property
    def row(self) -> str:
        """The row of the page."""
        shown = (self.sdk, self.released or "-", self.outcome, self.lacks or "-")
        return f"| {' | '.join(shown)} |"


def install(sdk: str, directory: Path) -> Path | None:
    """Make an environment with this SDK in front of the packages of this one. None if the index cannot be reached."""
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(directory)}))
    requirement = "hatchet-sdk<2" if sdk == NEWEST else f"hatchet-sdk=={sdk}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "--retries", "1", "--timeout", "10", "--no-deps", "--target", str(packages), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        sys.stderr.write(installed.stderr)
        # pip says of both that it finds no version.
        if "connection" in installed.stderr.lower():
            return None
        raise SystemExit(f"hatchet-sdk {sdk} could not be installed")
    # After the SDK, so that it wins; editable installs among them are .pth files of their own.
    own = [each for each in sys.path if each.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({each!r})" for each in own]
    (packages / "dependencies.pth").write_text("\n".join([*lines, ""]))
    return python


def compile_packages(python: Path) -> None:
    """Write the bytecode of this SDK: the processes of a run write none, so each would compile it."""
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", python.parent.parent / "lib"], check=False)


def arguments_of(sdk: str) -> tuple[str, ...]:
    """What pytest gets for an SDK."""
    return EVERY + {NEWEST: NEWEST_ONLY, OLDEST_SDK: OLDEST_ONLY}.get(sdk, ())


def run(arguments: Sequence[str], python: Path) -> Result:
    """Run tests with this interpreter."""
    sdk = _installed_sdk(python)
    began = time.monotonic()
    ran = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        # A process that dies after pytest's last line says where.
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(ROOT)},
    )
    seconds = time.monotonic() - began
    last = ran.stdout.strip().splitlines()[-1:] or [""]
    counts = {word: int(count) for count, word in _COUNT.findall(last[0])}
    passed, failed = counts.get("passed", 0), counts.get("failed", 0) + counts.get("error", 0)
    if ran.returncode:
        after = " after its closing line" if passed and not failed else ""
        sys.stderr.write(
            f"--- hatchet-sdk {sdk}: pytest ended with status {ran.returncode}{after} ---\n{ran.stdout}{ran.stderr}\n"
        )
    return Result(sdk, passed, failed, seconds, ran.returncode)


def _installed_sdk(python: Path) -> str:
    return _output(python, "from importlib.metadata import version; print(version('hatchet-sdk'))")


def is_of_suite(python: Path) -> bool:
    """Whether this interpreter's SDK is the one of this environment, with which the whole suite runs."""
    return _installed_sdk(python) == version("hatchet-sdk")


_LACKS = """
import inspect, warnings
warnings.simplefilter("ignore")
from hatchet_sdk import Hatchet
lacks = [name for name in ("batch_task", "from_embedded") if not hasattr(Hatchet, name)]
lacks += ["idempotency"] * ("idempotency" not in inspect.signature(Hatchet.task).parameters)
print(", ".join(f"`{name}`" for name in lacks))
"""


def release_dates() -> dict[str, str]:
    """The day on which each hatchet-sdk was uploaded to the package index that pip uses; empty if it does not say."""
    ask = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    index = _output_of([sys.executable, "-m", "pip", "config", "get", "global.index-url"])
    index = (index or _output_of([sys.executable, "-c", ask])).rstrip("/")
    request = urllib.request.Request(f"{index}/hatchet-sdk/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310 - the address is pip's
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - as above
            files: list[dict[str, Any]] = json.load(response)["files"]
    except (OSError, ValueError, LookupError) as error:
        print(f"the package index does not say when each SDK was released: {error}", file=sys.stderr)
        return {}
    wheels = [each for each in files if each["filename"].endswith(".whl")]
    return {each["filename"].split("-")[1]: each.get("upload-time", "")[:10] for each in wheels}


def _output_of(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _output(python: Path, code: str) -> str:
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def written(page: str, results: Sequence[Result]) -> str:
    """The page with these results in its table."""
    rows = [
        "| hatchet-sdk | released | contract suite | lacks, and raises `SdkFeatureError` for |",
        "|---|---|---|---|",
        *(each.row for each in results),
    ]
    return _TABLE.sub(lambda found: found[1] + "\n".join(rows) + "\n" + found[2], page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.sdk_matrix", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sdk", nargs="+", default=[OLDEST_SDK, BETWEEN, NEWEST], help="versions, or 'newest'")
    parser.add_argument("--beside-suite", action="store_true", help="not the SDK that the suite runs with")
    parser.add_argument("--write", action="store_true", help="write the results to docs/compatibility.md")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="mageflow-sdk-") as scratch:
        for sdk in options.sdk:
            python = install(sdk, Path(scratch, sdk))
            if python is None:
                print(f"!!! hatchet-sdk {sdk} could not be installed: the SDK matrix was NOT run !!!", file=sys.stderr)
                continue
            if options.beside_suite and is_of_suite(python):
                print(f"hatchet-sdk {version('hatchet-sdk')}: the suite runs with it", flush=True)
                continue
            compile_packages(python)
            result = replace(run(arguments_of(sdk), python), lacks=_output(python, _LACKS))
            results.append(result)
            print(f"hatchet-sdk {result.sdk}: {result.outcome}, {result.seconds:.0f} s", flush=True)
    if options.write and results:
        dates = release_dates()
        results = [replace(each, released=dates.get(each.sdk, "")) for each in results]
        PAGE.write_text(written(PAGE.read_text(), results))
    return int(not all(each.is_good for each in results))


if __name__ == "__main__":
    sys.exit(main())
