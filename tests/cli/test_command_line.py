"""The command line: help without imports, exit status, and errors as one line."""

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata

import click
import pytest
from click.testing import CliRunner

from mageflow.cli import group
from mageflow.distribution import installs
from mageflow.errors import MageflowError, RedisNotConfiguredError, StoreUnavailableError


def mageflow(*arguments: str, columns: int = 120) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does, in a terminal of this width."""
    return subprocess.run(
        [sys.executable, "-c", "from mageflow.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "COLUMNS": str(columns)},
    )


def test_help_lists_every_command_and_shows_examples():
    """``--help`` lists all commands."""
    run = mageflow("--help")

    assert run.returncode == 0
    assert [name for name in group.COMMANDS if f"  {name} " not in run.stdout] == []
    assert "Examples:" in run.stdout


def test_help_has_the_commands_in_groups():
    """Each command stands once, below the heading of what it is for, and all summaries begin in one column."""
    shown = mageflow("--help", columns=80).stdout.partition("Examples:")[0]
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    lines = [line for line in shown.splitlines() if line.strip().partition(" ")[0] in group.COMMANDS]

    assert headings == [
        "Options:",
        "Try and develop:",
        "Run workers:",
        "See what happens:",
        "Act on signatures, chains and swarms:",
    ]
    assert sorted(line.split()[0] for line in lines) == sorted(group.COMMANDS)
    assert lines[0].split()[0] == "demo"
    assert {len(line) - len(line[2:].partition(" ")[2].lstrip()) for line in lines} == {14}


def test_help_loads_no_library():
    """``--help`` is fast: it imports no command and no library that a command needs."""
    program = (
        "import json, sys\nfrom mageflow.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    print(json.dumps(sorted(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout.splitlines()[-1]))

    assert {"hatchet_sdk", "redis", "opentelemetry", "prometheus_client", "rich", "pydantic", "grpc"} & loaded == set()
    assert {home.module for home in group.COMMANDS.values()} & loaded == set()


@pytest.mark.parametrize("name", group.COMMANDS)
def test_every_command_has_help_of_its_own(name):
    """Each listed command exists under its name and prints its help."""
    home = group.COMMANDS[name]
    command = getattr(importlib.import_module(home.module), home.attribute)

    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help
    assert home.summary.endswith(".")
    result = CliRunner().invoke(command, ["--help"])
    assert result.exit_code == 0, result.output


def commands() -> list[list[str]]:
    """Every command with its path, subcommands included."""
    found: list[list[str]] = [[]]
    for name, home in group.COMMANDS.items():
        command = getattr(importlib.import_module(home.module), home.attribute)
        found.append([name])
        found += [[name, each] for each in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_help_fits_a_terminal_and_has_examples(path):
    """No line of any ``--help`` is wrapped at 80 columns, and each has an example that begins with the command."""
    run = mageflow(*path, "--help", columns=80)

    assert run.returncode == 0
    assert [line for line in run.stdout.splitlines() if len(line) > 80] == []
    _, found, examples = run.stdout.partition("Example")
    assert found
    assert f"    {' '.join(['mageflow', *path])} " in examples.replace("\n", " \n")


def test_version_names_ours_and_the_sdks():
    """A bug report needs both versions."""
    run = mageflow("--version")

    assert (
        run.stdout
        == f"mageflow {metadata.version('hatchet-mageflow')}, hatchet-sdk {metadata.version('hatchet-sdk')}\n"
    )


def test_unknown_command_is_a_usage_error():
    """Status 2, and nothing on stdout."""
    run = mageflow("fly")

    assert run.returncode == 2
    assert run.stdout == ""
    assert "No such command 'fly'" in run.stderr


def test_an_unknown_command_names_the_nearest():
    """A slip of the finger gets the command that was meant."""
    run = mageflow("lst")

    assert run.returncode == 2
    assert "No such command 'lst'; did you mean 'list'?" in run.stderr


def test_a_group_without_a_command_prints_its_help():
    """``mageflow`` and ``mageflow dashboards`` alone show their commands."""
    assert "Try and develop:" in mageflow().stdout + mageflow().stderr
    run = mageflow("dashboards")
    assert "export" in run.stdout + run.stderr
    assert "Error" not in run.stderr


@pytest.mark.parametrize(
    ("error", "status"),
    [(StoreUnavailableError("sign", "Connection refused"), 1), (RedisNotConfiguredError("sign"), 2)],
)
def test_an_error_of_ours_is_one_line(error: MageflowError, status: int, monkeypatch, capsys):
    """A command that fails with one of mageflow's errors prints its message and no traceback."""

    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(sys.modules[__name__], "failing", failing, raising=False)
    monkeypatch.setitem(group.COMMANDS, "failing", group.CommandHome(__name__, "failing", "Fails."))

    with pytest.raises(SystemExit) as ended:
        group.main(["failing"])

    printed = capsys.readouterr()
    assert ended.value.code == status
    assert printed.err == f"mageflow: {error}\n"
    assert printed.out == ""


def test_a_missing_extra_is_named(monkeypatch, capsys):
    """A command whose library is not installed prints the command that installs the extra."""
    monkeypatch.setitem(group.COMMANDS, "absent", group.CommandHome("library_of_an_extra", "absent", "Is absent."))

    with pytest.raises(SystemExit) as ended:
        group.main(["absent"])

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mageflow: absent needs library_of_an_extra: {installs('local')}\n"
