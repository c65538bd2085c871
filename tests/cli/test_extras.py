"""Commands that need the extra ``local`` check for it before they start anything."""

import pytest

from mageflow.cli import main
from mageflow.distribution import installs


@pytest.mark.parametrize("command", ["demo", "engine"])
def test_missing_extra_is_one_line(command, monkeypatch, capsys):
    """Without the extra the command exits with status 2 and prints the command that installs it."""
    monkeypatch.setattr("mageflow.cli.extras.find_spec", lambda module: None if module == "cel" else object())

    with pytest.raises(SystemExit) as ended:
        main([command])

    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.err == f"mageflow: mageflow {command} needs an extra: {installs('local')}\n"
