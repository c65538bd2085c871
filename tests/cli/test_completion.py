"""Completion in real shells: the lines that docs/command-line.md names, and what a shell then completes."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.top.terminal import open_terminal

LINES = [
    ("mageflow su", {"suspend"}),
    ("mageflow dashboards ex", {"export"}),
    ("mageflow list --st", {"--status"}),
    ("mageflow list --status fa", {"failed"}),
]


@pytest.fixture
def line_of_the_page(root: Path) -> Mapping[str, str]:
    """By shell: what the page says to write into its start file, without the comment."""
    page = (root / "docs/command-line.md").read_text()
    lines = re.findall(r"^(.*_MAGEFLOW_COMPLETE=(\w+)_source.*?) +# in ", page, re.MULTILINE)
    return {shell: line for line, shell in lines}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home without start files, and the command of this checkout in the path."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/mageflow"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mageflow "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "HOME": str(tmp_path),
        "ZDOTDIR": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
    }


def run(command: list[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash_completes(line, expected, line_of_the_page, environment) -> None:
    """With the function that the line defines."""
    words = line.split()
    script = (
        f"{line_of_the_page['bash']}\n"
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _mageflow_completion mageflow\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    assert set(run(["bash", "--norc", "-c", script], environment).split()) == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish_completes(line, expected, line_of_the_page, environment) -> None:
    """As fish itself says: each candidate, with its help behind a tab."""
    script = f"{line_of_the_page['fish']}; complete -C '{line}'"
    printed = run(["fish", "--no-config", "-c", script], environment)
    assert {each.partition("\t")[0] for each in printed.splitlines()} == expected


@pytest.mark.skipif(None in (shutil.which("zsh"), shutil.which("tmux")), reason="needs zsh and tmux")
def test_zsh_completes(line_of_the_page, environment) -> None:
    """At the key: the editor of zsh has the whole word after Tab."""
    start = Path(environment["ZDOTDIR"]) / ".zshrc"
    start.write_text(f"autoload -Uz compinit && compinit -u\n{line_of_the_page['zsh']}\nPROMPT='ready> '\n")
    with open_terminal(["zsh", "-i"], environment) as terminal:
        for line, [expected] in LINES:
            # Keys pressed before zsh has handled Ctrl-C end in the line that it ends.
            terminal.wait_for(lambda screen: screen.strip().endswith("ready>"), 120)
            terminal.press(line, "Tab")
            whole = f"{line.rpartition(' ')[0]} {expected}"
            terminal.wait_for(lambda screen, whole=whole: f"ready> {whole}" in screen, 120)
            terminal.press("C-c")
            # The signal discards what is typed before the new prompt.
            terminal.wait_for(lambda screen: screen.rstrip().endswith("ready>"), 120)
