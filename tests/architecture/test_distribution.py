"""Hints name a command that installs this project, and not another project of the same import name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mageflow import distribution

PROGRAM = "import sys; sys.path.insert(0, {site!r}); from mageflow import distribution as d; print(d.installs('local'))"


def install(site: Path, name: str, version: str, direct_url: dict[str, object] | None = None) -> None:
    """Write the metadata an installer leaves behind."""
    metadata = site / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if direct_url is not None:
        (metadata / "direct_url.json").write_text(json.dumps(direct_url))


def printed(program: str) -> str:
    """What a fresh interpreter prints."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.strip()


@pytest.mark.parametrize(
    ("is_editable", "command"),
    [(True, "pip install -e '{root}[local]'"), (False, "pip install '{root}[local]'")],
)
def test_an_installation_from_a_checkout_names_the_checkout(root, tmp_path, is_editable, command):
    """PEP 610 says where the installation comes from; the hint installs from there again."""
    direct = {"url": root.as_uri(), "dir_info": {"editable": True} if is_editable else {}}
    install(tmp_path, distribution.DISTRIBUTION, "9.9.9", direct)

    assert printed(PROGRAM.format(site=str(tmp_path))) == command.format(root=root)


@pytest.mark.parametrize("name", ["hatchet_mageflow-9.9.9-py3-none-any.whl", "hatchet_mageflow-9.9.9.tar.gz"])
def test_an_installation_from_a_built_file_names_the_file(tmp_path, name):
    """The distribution may be on no index: the extra is installed from the same file."""
    built = tmp_path / name
    built.touch()
    install(tmp_path, distribution.DISTRIBUTION, "9.9.9", {"url": built.as_uri(), "archive_info": {}})

    assert printed(PROGRAM.format(site=str(tmp_path))) == f"pip install '{built}[local]'"


@pytest.mark.parametrize(
    "direct",
    [
        None,
        {"url": "https://example.com/archive.zip", "archive_info": {}},
        {"url": "file:///no/such/mageflow.whl", "archive_info": {}},
        {"url": "file:///no/such/checkout", "dir_info": {"editable": True}},
        {"url": 7, "dir_info": None},
    ],
)
def test_every_other_installation_names_the_distribution(tmp_path, direct):
    """From an index, from the web, or from a file or checkout that is gone: the name of the distribution."""
    install(tmp_path, distribution.DISTRIBUTION, "9.9.9", direct)

    assert printed(PROGRAM.format(site=str(tmp_path))) == "pip install 'hatchet-mageflow[local]'"


def test_the_other_project_of_this_import_name_is_reported(tmp_path):
    """`mageflow` on the index is another project; the command line warns on stderr when both are installed."""
    install(tmp_path, "mageflow", "0.3.5")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from mageflow.cli import main; main(['--version'])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stderr.startswith(
        "mageflow: warning: the distribution 'mageflow' 0.3.5 is installed beside 'hatchet-mageflow'"
    )
    assert "pip uninstall mageflow hatchet-mageflow" in run.stderr
    assert run.stdout.startswith("mageflow ")


def test_no_line_of_the_project_installs_the_other_project(root):
    """`pip install mageflow` and `pip install 'mageflow[...]'` fetch the program of another author."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    found = [
        f"{name}: {line.strip()}"
        for name in listed.split("\0")
        if name.endswith((".py", ".md", ".toml", ".yml", ".sh", "Dockerfile"))
        and name != "tests/architecture/test_distribution.py"
        for line in (root / name).read_text(encoding="utf-8").splitlines()
        if "install 'mageflow" in line or "install mageflow" in line or re.search(r'"mageflow\[\w', line)
    ]

    assert found == []


def test_the_module_runs_as_the_command(root):
    """``python -m mageflow`` and ``mageflow`` are one program."""
    run = subprocess.run(
        [sys.executable, "-m", "mageflow", "--version"], cwd=root, capture_output=True, text=True, check=True
    )

    assert run.stdout.startswith(f"mageflow {distribution.installed_version()}, hatchet-sdk ")
