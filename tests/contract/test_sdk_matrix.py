"""The verdict of ``python -m tests.contract.sdk_matrix`` on a run, with processes that really end so."""

import os
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from mageflow.hatchet.features import OLDEST_SDK
from tests.contract.sdk_matrix import NEWEST, ROOT, arguments_of, install, is_of_suite, run

PASSES = "def test_one():\n    pass\n"
ENDINGS = {
    "passes": (PASSES, "1 passed, 0 failed", True),
    "fails": ("def test_one():\n    assert False\n", "0 passed, 1 failed", False),
    "aborts": (f"import atexit, os\natexit.register(os.abort)\n{PASSES}", "1 passed, 0 failed, then SIGABRT", False),
    "exits": (f"import atexit, os\natexit.register(os._exit, 3)\n{PASSES}", "1 passed, 0 failed, then status 3", False),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_process_that_dies_after_its_tests_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What dies there dies in a user's program too."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    source, outcome, is_good = ENDINGS[name]
    file = tmp_path / "test_ending.py"
    file.write_text(source)
    result = run([str(file), f"--rootdir={tmp_path}", "-c", "/dev/null"], Path(sys.executable))
    assert (result.outcome, result.is_good) == (outcome, is_good)
    assert ("pytest ended with status" in capsys.readouterr().err) is not is_good


def test_the_sdk_of_the_suite_is_left_out_beside_it(tmp_path: Path) -> None:
    """The whole suite has every test that the matrix runs with this SDK. Another SDK is not left out."""
    assert is_of_suite(Path(sys.executable))
    venv.create(tmp_path, with_pip=False)
    other = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path)})) / "hatchet_sdk-1.0.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: hatchet-sdk\nVersion: 1.0.0\n")
    assert not is_of_suite(tmp_path / "bin/python")
    [tests] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
    assert all(each.startswith(f"{tests}/") for each in arguments_of(NEWEST))


def test_an_index_that_cannot_be_reached_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that the index does not have is one."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    assert install("1.30.0", tmp_path / "unreachable") is None
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit):
        install("1.30.0", tmp_path / "unknown")


def test_the_tests_of_each_sdk_exist() -> None:
    """A renamed file or test would leave a run without it, or with one that the SDK cannot pass."""
    root = Path(__file__).parent.parent.parent
    for argument in {*arguments_of(NEWEST), *arguments_of(OLDEST_SDK), *arguments_of("1.37.5")}:
        path, _, test = argument.removeprefix("--deselect=").partition("::")
        assert f"def {test}(" in (root / path).read_text() if test else (root / path).is_file()
