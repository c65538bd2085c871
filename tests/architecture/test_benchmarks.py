"""The table of what mageflow costs: one command measures it, and the page is written from it."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mageflow.locks import service as locks_service
from mageflow.store.locks import store as locks_store
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import beside, profiles


def test_an_idle_worker_is_measured(root: Path, tmp_path: Path) -> None:
    """One real part of the table, with stored numbers beside it."""
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    scripts = "idle worker, nothing stored: scripts a minute"
    before.write_text(json.dumps({scripts: 66}))
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "idle"]
    files = ["--before", str(before), "--json", str(after)]

    done = subprocess.run([*command, *files], cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"| {scripts} | 66.0 | 30.0 |" in done.stdout.splitlines()
    assert json.loads(after.read_text())[scripts] == 30


def test_the_page_is_written_between_its_marks(tmp_path: Path) -> None:
    """The text around the table stays."""
    page = tmp_path / "performance.md"
    page.write_text(benchmarks.PAGE.read_text())
    content = benchmarks.table([("bulk run over bare: CPU", "", 1.063), ("free lock", "µs", 1450.2)], {})

    benchmarks.write(page, content)

    assert "| bulk run over bare: CPU | 1.06 |\n| free lock | 1,450 µs |\n" in page.read_text()
    for text in ("# What it costs\n", "## Idle workers\n"):
        assert page.read_text().count(text) == benchmarks.PAGE.read_text().count(text) == 1
    benchmarks.write(page, content)
    assert page.read_text().count(content) == 1


def test_readme_shows_what_the_page_shows() -> None:
    """Ratio and microseconds stand in README as they stand in the written table."""
    written = benchmarks.written(benchmarks.PAGE)

    shown = benchmarks.written(benchmarks.README, benchmarks.README_START, benchmarks.README_END)

    assert shown == benchmarks.readme_table(written)
    assert shown.count(" µs |") == len(shown.splitlines()) - 2 == 3


def test_a_part_that_is_measured_again_replaces_its_own_rows() -> None:
    """The rows of the other parts stay where they are."""
    before = benchmarks.table([("bulk", "", 1.06), ("free lock", "µs", 450.2)], {})
    after = benchmarks.table([("free lock", "µs", 440.0), ("idle", "%", 1.5)], {})

    merged = benchmarks.merged(before, after)

    assert benchmarks.cells(merged) == {"bulk": "1.06", "free lock": "440 µs", "idle": "1.50 %"}
    assert merged.splitlines()[:2] == before.splitlines()[:2]


def test_the_table_has_the_round_trips_of_flows(root: Path, tmp_path: Path) -> None:
    """A chain of three costs seven, an item of a swarm two."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "flows", "--json", str(found)]

    subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)

    assert json.loads(found.read_text()) == {
        "round trips to Redis: chain of 3": 7,
        "round trips to Redis: item of a swarm": 2.01,  # and one to start all 100
    }


def test_the_raw_calls_record_what_mageflow_records(root: Path) -> None:
    """The limit is of the same span, attributes, line, series and exemplars."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_attempt", "--records"]

    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True)

    found = json.loads(done.stdout)
    assert found["raw"] == found["mageflow"]
    assert found["raw"]["span"] == ["process bench", "CONSUMER", True]
    assert len(found["raw"]["attributes"]) == 21
    assert len(found["raw"]["line"]) == 15
    assert len(found["raw"]["series"]) == 8


def test_an_attempt_stands_beside_the_raw_calls(root: Path, tmp_path: Path) -> None:
    """Both numbers and their ratio are rows of the table."""
    found = tmp_path / "found.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "attempt", "--json", str(found)]

    subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)

    added, raw, ratio = json.loads(found.read_text()).values()
    assert ratio == pytest.approx(added / raw)


SLOWER = """
_settle = Store.settle

async def _settle_late(self, *arguments, **options):
    await self.due(1, 15.0)  # one round trip more
    return await _settle(self, *arguments, **options)

Store.settle = _settle_late
"""


def test_another_package_is_measured_in_the_same_run(root: Path, tmp_path: Path) -> None:
    """The processes that are measured use the package of the other checkout, with the programs of this one."""
    shutil.copytree(root / "mageflow", tmp_path / "mageflow", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "mageflow/store/records/store.py").open("a") as store:
        store.write(SLOWER)
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "flows", "--beside", str(tmp_path)]

    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    head, _, chain, _ = done.stdout.splitlines()
    assert head == f"|  | before (`{tmp_path.name}`) | now | change |"
    assert chain == "| round trips to Redis: chain of 3 | 10.0 | 7.00 | -30 % |"


def test_a_part_that_does_not_run_with_the_other_package_says_so(root: Path, tmp_path: Path) -> None:
    """An older package may lack a name that a benchmark uses."""
    (tmp_path / "mageflow").mkdir()
    (tmp_path / "mageflow/__init__.py").touch()
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", "flows", "--beside", str(tmp_path)]

    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "| round trips to Redis: chain of 3 | does not run | 7.00 |  |" in done.stdout.splitlines()
    assert "the part flows does not run with the other package" in done.stderr


def test_the_package_of_a_commit_is_put_into_a_folder_of_its_own(root: Path) -> None:
    """It has the short hash, and nothing of the checkout but the package."""
    with beside.other_package("HEAD") as other:
        found = sorted(each.name for each in other.folder.iterdir())
        has_package = (other.folder / "mageflow/store/lua/admit.lua").is_file()
        hash_ = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)

    assert (found, has_package) == (["mageflow"], True)
    assert hash_.stdout.startswith(other.name)
    assert not other.folder.exists()
    with pytest.raises(SystemExit, match="no-such-commit is neither a commit"), beside.other_package("no-such-commit"):
        pass


def test_several_turns_are_one_result() -> None:
    """Each number is the median of its place, and texts stay."""
    found = [{"p50": {"a": value, "name": "x"}, "count": 7} for value in (3.0, 1.0, 9.0)]

    assert beside.medians(found) == {"p50": {"a": 3.0, "name": "x"}, "count": 7}


def test_the_written_table_may_have_the_numbers_of_a_commit() -> None:
    """Before, now and the change; README shows what is now, and a part measured alone replaces its own rows."""
    rows = [(benchmarks.BULK, "", 1.1), (benchmarks.ADDED, "µs", 300.0), ("free lock", "µs", 450.2)]
    content = benchmarks.table(rows, {benchmarks.BULK: 1.32, benchmarks.ADDED: 600.0, "free lock": None}, "abc1234")

    assert content.splitlines()[0] == "|  | before (`abc1234`) | now | change |"
    assert f"| {benchmarks.ADDED} | 600 µs | 300 µs | -50 % |" in content.splitlines()
    assert "| free lock | does not run | 450 µs |  |" in content.splitlines()
    assert "| 1.10 | 300 µs |" in benchmarks.readme_table(content)
    after = benchmarks.table([("free lock", "µs", 440.0)], {})
    assert benchmarks.cells(benchmarks.merged(content, after))["free lock"] == "440 µs"
    assert benchmarks.cells(benchmarks.merged(content, after))[benchmarks.BULK] == "1.10"


@pytest.mark.parametrize(
    ("value", "unit", "shown"), [(None, "µs", ""), (0.5, "%", "0.50 %"), (12.34, "", "12.3"), (-2000, "", "-2,000")]
)
def test_numbers_have_three_digits(value: float | None, unit: str, shown: str) -> None:
    """What was not measured before is an empty cell."""
    assert benchmarks.text(value, unit) == shown


def _spin(until: float) -> None:
    while time.process_time() < until:
        pass


def test_a_profile_says_whose_code_runs():
    """Samples are taken by CPU time, and each counts for the room or the library of its function."""
    with profiles.sampled() as samples:
        _spin(time.process_time() + 0.3)

    assert samples.total() >= 5
    assert max(samples, key=samples.__getitem__)[1] == "_spin (test_benchmarks.py)"
    owners = {locks_service: "mageflow.locks", locks_store: "mageflow.store.locks", asyncio.tasks: "asyncio"}
    assert [profiles.owner_of(str(each.__file__)) for each in owners] == list(owners.values())
    found = {"free lock": samples, "two trivial scripts": samples}
    assert "| together | 100 % | 100 % |" in profiles.lock_tables(found)
