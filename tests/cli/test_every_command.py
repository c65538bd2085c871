"""Every command, without an exception: help, narrow terminals, colours, wrong servers."""

import asyncio
import re
import socket
import threading
from collections.abc import Generator, Iterator
from datetime import timedelta
from importlib import import_module
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mageflow.cli import group
from mageflow.cli.moments import Duration
from tests.cli.stored_flows import StoredFlows

ESCAPE = re.compile("[\x1b\x9b]")
READ_REDIS = ["cancel", "damaged", "inspect", "interrupt", "list", "locks", "resume", "start", "suspend", "tail"]
"""Commands that need a Redis that answers. `top`, `doctor` and `worker` show one that does not, and go on or say so."""
ID = "000a"
NEEDS_KEY = ("cancel", "inspect", "interrupt", "resume", "start", "suspend")


def tree() -> Iterator[tuple[str, click.Command]]:
    """Every command with its path, subcommands included."""

    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                found = command.get_command(click.Context(command), name)
                assert found is not None
                yield from walk(f"{path} {name}".strip(), found)

    yield from walk("", group.root())


COMMANDS = dict(tree())


def help_of(path: str, columns: int, **variables: str) -> str:
    result = CliRunner().invoke(
        group.root(), [*path.split(), "--help"], prog_name="mageflow", env={"COLUMNS": str(columns), **variables}
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_numbers_that_are_not_finite_are_refused() -> None:
    """``nan`` is neither below nor above a limit, and would become a length of time or of a pause."""
    ranges = [
        option
        for command in COMMANDS.values()
        for option in command.params
        if isinstance(option.type, click.FloatRange | Duration)
    ]
    assert len(ranges) >= 8
    for option in ranges:
        for number in ("nan", "inf", "-inf", "1e999"):
            with pytest.raises(click.BadParameter):
                option.type.convert(number, option, None)


DURATIONS = [
    (path, option)
    for path, command in COMMANDS.items()
    for option in command.params
    if isinstance(option.type, Duration)
]


@pytest.mark.parametrize(("path", "option"), DURATIONS, ids=lambda each: getattr(each, "name", each))
def test_every_length_of_time_has_one_form(path: str, option: click.Parameter) -> None:
    """``10s``, and in a form that has been a number before, the number alone; limits are named as durations."""
    assert isinstance(option, click.Option)
    assert option.metavar == "DURATION"
    assert option.type.convert("10s", option, None) == timedelta(seconds=10)
    assert option.type.convert("0.5m", option, None) == timedelta(seconds=30)
    if option.name != "delay":  # --in of start
        unit = 60 if option.name == "since" else 1
        assert option.type.convert("10", option, None) == timedelta(seconds=10 * unit)
    for wrong in ("", "0", "0s", "-1s", "1s1m", "s", "1 h", "1w", "2h30", "\u0663s", "9" * 400):
        with pytest.raises(click.BadParameter, match=r"no duration such as 90s, 10m|is (less|more) than \d"):
            option.type.convert(wrong, option, None)
    with pytest.raises(click.BadParameter, match=r"is more than (3650d|1m)"):
        option.type.convert("3651d", option, None)


def test_no_length_of_time_is_a_mere_number() -> None:
    """An option that counts seconds or minutes is a duration."""
    counted = [
        f"{path} {option.opts[0]}"
        for path, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option)
        and not isinstance(option.type, Duration)
        and re.search("second|minute|hour", f"{option.metavar} {option.help}", re.IGNORECASE)
    ]
    assert len(DURATIONS) == 6
    assert counted == []


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', "[" * 100_000, "9" * 5000, "7"])
def test_a_message_that_has_no_json_form_is_a_wrong_argument(text: str) -> None:
    """Before anything is connected to."""
    result = CliRunner().invoke(group.root(), ["start", ID, "--input", "-"], input=text)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "Error: Invalid value for --input" in result.output


def test_the_tree_is_whole() -> None:
    """The commands of the group are those that the tests below go over."""
    assert set(group.COMMANDS) <= set(COMMANDS)
    redis = {name for name in group.COMMANDS if any(each.name == "redis_url" for each in COMMANDS[name].params)}
    assert redis - {"doctor", "mcp", "top"} == set(READ_REDIS)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_40_and_80_columns(path: str) -> None:
    """At 80 columns no line is longer. At 40 no word is cut, no word is lost, and only single long words stick out."""
    wide = help_of(path, 80)
    assert [line for line in wide.splitlines() if len(line) > 80] == []
    assert "Example" in wide
    narrow = help_of(path, 40)
    if not path or not isinstance(COMMANDS[path], click.Group):  # click shortens what a group says of its commands
        assert "".join(narrow.split()) == "".join(wide.split())
        # At 80 columns click breaks a word at a hyphen.
        assert [word for word in narrow.split() if "-" not in word and word not in wide.split()] == []
    for line in narrow.splitlines():
        assert len(line) <= 40 or len(line.split()) == 1, line


@pytest.mark.parametrize("path", COMMANDS)
def test_help_has_no_escapes(path: str) -> None:
    """With NO_COLOR, and in a pipe without it."""
    assert ESCAPE.search(help_of(path, 80, NO_COLOR="1")) is None
    assert ESCAPE.search(help_of(path, 80, FORCE_COLOR="1")) is None


@pytest.fixture(scope="module")
def wrong_server() -> Generator[str]:
    """A server that answers as HTTP does, and not as Redis."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(1000)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    except OSError:
                        continue

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def arguments_of(name: str) -> list[str]:
    return [name, *([ID] if name in NEEDS_KEY else [])]


def run_in_process(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        group.main(list(arguments))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ESCAPE.search(printed.err) is None
    assert "Traceback" not in printed.err
    assert isinstance(ended.value.code, int)
    return ended.value.code, printed.err


@pytest.mark.parametrize("name", READ_REDIS)
def test_a_wrong_redis_is_one_line(name: str, wrong_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A server that is none of Redis, a URL that is none, and a URL without a host."""
    status, line = run_in_process(capsys, *arguments_of(name), "--redis-url", wrong_server)
    assert status == 1
    assert line.startswith("mageflow: ")
    assert line.count("\n") == 1
    for url in ("http://localhost", "localhost:6379", "redis://localhost:port"):
        status, line = run_in_process(capsys, *arguments_of(name), "--redis-url", url)
        assert (status, line.count("\n")) == (2, 1), line
        assert line.startswith("mageflow: ")


def test_a_closed_port_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing listens there. One command stands for all: they open Redis in one way, and wait some seconds for it."""
    status, line = run_in_process(capsys, "list", "--redis-url", "redis://127.0.0.1:1/0")
    assert (status, line.count("\n")) == (1, 1)
    assert "could not be reached" in line


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)])
def test_an_unknown_option_is_a_usage_error(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, and the last line says what is wrong."""
    status, text = run_in_process(capsys, *path.split(), "--no-such-option")
    assert status == 2
    assert text.splitlines()[-1].startswith("Error: No such option")


def test_commands_are_imported_when_they_run() -> None:
    """The module of each command exists and has it under its name."""
    for name, home in group.COMMANDS.items():
        assert getattr(import_module(home.module), home.attribute).name == name


async def test_tables_fit_40_columns(
    stored: StoredFlows, inspected: Any, mageflow_redis: Any, monkeypatch: Any
) -> None:
    """No line is longer than the terminal, except for a word that is, and no key or id is cut."""
    monkeypatch.setenv("COLUMNS", "40")
    chain = await stored.flows.creation.chain(["add", "fail", "add"], name="billing of all customers", error="callback")
    await stored.flows.start(chain, {"n": 5})
    await stored.worker.drain()
    command = ["--redis-url", mageflow_redis.url, "--namespace", "prod"]
    listed = (await asyncio.to_thread(CliRunner().invoke, COMMANDS["list"], command)).output
    shown = (await inspected(chain.key)).output
    for output in (listed, shown):
        assert chain.key in output
        for line in output.splitlines():
            assert len(line.rstrip()) <= 40 or len(line.split()) == 1, line
    assert "billing of all customers" in " ".join(listed.split())
    run = (await stored.flows.load(f"{chain.key}#1")).last_run
    assert run is not None
    assert run.workflow_run_id in shown
