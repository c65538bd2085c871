"""The env file of a development engine: the variables that lead a program to it.

The file stays when the engine ends. The next engine of the same name reads its token and its ports, so programs that
were started with the variables find that engine too.
"""

import json
import os
import re
import shlex
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import click

from mageflow.errors import ConfigurationError, EngineError
from mageflow.files import PRIVATE, write_in_one_step

__all__ = ["DEFAULT_NAME", "Environment", "name_option"]

DEFAULT_NAME: Final = "default"
_CONNECT_SECONDS: Final = 2.0
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

F = TypeVar("F", bound=Callable[..., Any])


def name_option(command: F) -> F:
    """Add ``--name`` to a command."""
    return click.option(
        "--name",
        default=DEFAULT_NAME,
        show_default=True,
        metavar="NAME",
        callback=_checked_name,
        help="Which development engine. Each name has its own ports, token and env file.",
    )(command)


def _checked_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise click.BadParameter("use 1 to 64 letters, digits and _ . -")
    return value


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of one development engine, as its env file has them.

    Attributes:
        name: The name of the engine.
        variables: Values by name. Empty if there is no file.
    """

    name: str
    variables: Mapping[str, str]

    @staticmethod
    def path_of(name: str) -> Path:
        """The env file: ``$XDG_STATE_HOME/mageflow/NAME.env``, by default below ``~/.local/state``."""
        home = os.environ.get("XDG_STATE_HOME")
        directory = Path(home) if home else Path.home() / ".local" / "state"
        return directory / "mageflow" / f"{name}.env"

    @classmethod
    def read(cls, name: str) -> Self:
        """Read the env file of an engine. A file that is absent or damaged gives no variables."""
        try:
            words = shlex.split(cls.path_of(name).read_text("utf-8"), comments=True)
        except (OSError, ValueError):
            return cls(name, {})
        return cls(name, dict(word.split("=", 1) for word in words if "=" in word))

    @classmethod
    def of_running_engine(cls, name: str) -> Self:
        """Read the env file of an engine, and check that the engine answers.

        Raises:
            EngineError: No engine of this name runs here. The message has the command that starts it.
        """
        found = cls.read(name)
        if not found.is_answering():
            option = "" if name == DEFAULT_NAME else f" --name {name}"
            raise EngineError(
                f"no development engine {name!r} runs on this machine: start it in another terminal with "
                f"`mageflow engine --redis{option}`, or run your worker with it: `mageflow dev MODULE{option}`"
            )
        return found

    def write(self) -> Path:
        """Write the env file. Only its owner can read it.

        Raises:
            ConfigurationError: It cannot be written.
        """
        path = self.path_of(self.name)
        lines = [f"# The development engine {self.name!r}. Written by mageflow; use: mageflow run -- PROGRAM"]
        lines += [f"{name}={shlex.quote(value)}" for name, value in self.variables.items()]
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_in_one_step(path, "\n".join(lines) + "\n", mode=PRIVATE)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror}. Set XDG_STATE_HOME to a directory that can"
            ) from error
        return path

    @property
    def grpc_port(self) -> int | None:
        """The port of the engine for workers. None without a file."""
        return _port(f"//{self.variables.get('HATCHET_CLIENT_HOST_PORT', '')}")

    @property
    def api_port(self) -> int | None:
        """The port of the engine's REST API. None without a file."""
        return _port(self.variables.get("HATCHET_CLIENT_SERVER_URL", ""))

    @property
    def redis_port(self) -> int | None:
        """The port of the Valkey server. None if the engine had none."""
        return _port(self.variables.get("MAGEFLOW_REDIS_URL", ""))

    @property
    def token_secret(self) -> str | None:
        """The part of the token that cannot be guessed. None without a file."""
        return self.variables.get("HATCHET_CLIENT_TOKEN", "").rpartition(".")[2] or None

    def is_answering(self) -> bool:
        """Whether this engine runs: its REST API takes the token."""
        try:
            handshake = json.loads(self.variables.get("HATCHET_EMBEDDED_HANDSHAKE", "{}"))
            request = urllib.request.Request(  # noqa: S310 - the address of our own engine
                f"{handshake['api_url']}/api/v1/tenants/{handshake['tenant_id']}/worker",
                headers={"Authorization": f"Bearer {handshake['token']}"},
            )
            with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS) as response:  # noqa: S310 - as above
                return response.status == HTTPStatus.OK
        except (OSError, ValueError, KeyError):
            return False


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError:
        return None
