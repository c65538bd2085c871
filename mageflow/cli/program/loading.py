"""Imports the user's module and finds its client. A mistake in the module is one sentence with its place."""

import importlib
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mageflow.did_you_mean import hint
from mageflow.errors import ConfigurationError

if TYPE_CHECKING:
    from mageflow.client import Mageflow

__all__ = ["load_client"]

_MISSING = (
    "there is no token of Hatchet: set HATCHET_CLIENT_TOKEN. For an engine on this machine, run the command with it: "
    "`mageflow dev MODULE`, or `mageflow engine --redis` and `mageflow run -- ...`"
)


def load_client(target: str) -> tuple["Mageflow", str]:
    """Import a module and find its client.

    Args:
        target: ``MODULE`` or ``MODULE:CLIENT``: a dotted name or the path of a ``.py`` file, and the variable of the
            client, which may be left out if the module has one client.

    Returns:
        The client, and the name of the module.

    Raises:
        ConfigurationError: The module cannot be imported, or has no such client. The message names file and line.
    """
    name, _, attribute = target.partition(":")
    module = _import(name)
    return _client_of(module, attribute), module.__name__


def _client_of(module: ModuleType, attribute: str) -> "Mageflow":
    from mageflow.client import Mageflow

    found = {name: each for name, each in vars(module).items() if isinstance(each, Mageflow)}
    if attribute:
        if attribute not in found:
            raise ConfigurationError(f"{module.__name__} has no Mageflow client {attribute!r}{hint(attribute, found)}")
        return found[attribute]
    clients = list({id(each): each for each in found.values()}.values())
    if not clients:
        raise ConfigurationError(
            f"{module.__name__} has no client: write client = Mageflow(Hatchet()) at the top level of the module, or "
            "name the module that has it"
        )
    if len(clients) > 1:
        names = ", ".join(f"{module.__name__}:{name}" for name in found)
        raise ConfigurationError(f"{module.__name__} has several clients: choose one of {names}")
    return clients[0]


def _import(name: str) -> ModuleType:
    directory, name = _place_of(name)
    # As `python worker.py` and `python -m worker` do. Children of the worker get the same path.
    sys.path.insert(0, str(directory))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            here = [path.stem for path in directory.glob("*.py")]
            raise ConfigurationError(f"there is no module {error.name!r} in {directory}{hint(name, here)}") from error
        raise ConfigurationError(_sentence(error, directory)) from error
    except SyntaxError as error:
        raise ConfigurationError(f"{_short(error.filename or name)} line {error.lineno}: {error.msg}") from error
    except SystemExit as error:
        raise ConfigurationError(
            f"{_sentence(error, directory)}. The module ends the program while it is imported: put what it runs under "
            'if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise ConfigurationError(_MISSING if _lacks_token(error) else _sentence(error, directory)) from error


def _place_of(name: str) -> tuple[Path, str]:
    """The directory that goes on the path, and the dotted name of the module."""
    path = Path(name)
    if path.suffix != ".py" and not (os.sep in name and path.with_suffix(".py").is_file()):
        return Path.cwd(), name
    path = path.with_suffix(".py").absolute()
    if not path.is_file():
        raise ConfigurationError(f"there is no file {name}")
    if not path.stem.isidentifier():
        raise ConfigurationError(f"{path.name} cannot be imported: a module has a name of letters, digits and _")
    return path.parent, path.stem


def _lacks_token(error: Exception) -> bool:
    from pydantic import ValidationError

    return isinstance(error, ValidationError) and error.title == "ClientConfig" and "token" in str(error).lower()


def _sentence(error: BaseException, directory: Path) -> str:
    """The error and the last line of the user's own code on the way to it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        each
        for each in frames
        if Path(each.filename).is_relative_to(directory) and "site-packages" not in each.filename
    ]
    place = f"{_short(own[-1].filename)} line {own[-1].lineno}: " if own else ""
    text = " ".join(str(error).split())
    return f"{place}{type(error).__name__}{f': {text}' if text else ''}"


def _short(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
