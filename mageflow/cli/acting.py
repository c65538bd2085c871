"""What the commands share that change something: a client for the keys they are given, and one line for each key."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mageflow.cli.failures import complain
from mageflow.cli.redis_options import hatchet_namespace, open_redis
from mageflow.cli.stored_key import check_namespace, resolve_key
from mageflow.errors import ConfigurationError, DispatchError, FlowError, SignatureError
from mageflow.terminal import json_text, printable

if TYPE_CHECKING:
    from mageflow.client import Mageflow
    from mageflow.config import Settings

__all__ = ["Action", "act_on_each", "history_options", "user_name"]

F = TypeVar("F", bound=Callable[..., Any])
Action = Callable[["Mageflow", str], Awaitable[dict[str, Any]]]
"""Acts on the signature with this key and returns what happened; ``said`` is the line for people, ``unreadable``
are the errors of what had to be left out."""


def history_options(command: F) -> F:
    """Add ``--by`` and ``--why`` to a command: both are kept in the history of the signature."""
    by = click.option("--by", metavar="NAME", help="Who does this. Default: your name on this machine.")
    why = click.option("--why", metavar="TEXT", default="", help="The reason.")
    return by(why(command))


def user_name() -> str:
    """The user's name on this machine; empty if it has none."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def act_on_each(
    keys: Sequence[str], redis_url: str | None, namespace: str | None, action: Action, *, as_json: bool
) -> None:
    """Act on every key in turn and print what happened to each. One that fails does not keep the others from it.

    Args:
        keys: Keys or ids, as the user has written them.
        redis_url: URL of Redis.
        namespace: Namespace of Hatchet, as the user has written it.
        action: What to do.
        as_json: Print one JSON object at the end instead of a line for each.

    Raises:
        SystemExit: One of them failed; status 1.
        MageflowError: Redis does not answer, or the configuration must change: nothing would work.
    """
    with _without_log_lines():
        done, failed = asyncio.run(_act(keys, redis_url, namespace, action, is_quiet=as_json))
    if as_json:
        click.echo(json_text({"done": done, "failed": failed}))
    if failed:
        raise SystemExit(1)


async def _act(
    keys: Sequence[str], redis_url: str | None, namespace: str | None, action: Action, *, is_quiet: bool
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    async with _clients(redis_url, namespace) as client_of:
        for key in keys:
            try:
                client, whole_key = await client_of(key)
                result = {"key": whole_key, **await action(client, whole_key)}
            except (SignatureError, FlowError, DispatchError) as error:
                failed.append({"key": key, "error": str(error)})
                complain(str(error))
                continue
            said = result.pop("said")
            for error in result.pop("unreadable", ()):
                failed.append({"key": key, "error": str(error)})
                complain(str(error))
            done.append(result)
            if not is_quiet:
                click.echo(printable(f"{said}  {whole_key}"))
    return done, failed


@asynccontextmanager
async def _clients(
    redis_url: str | None, namespace: str | None
) -> "AsyncGenerator[Callable[[str], Awaitable[tuple[Mageflow, str]]]]":
    """A function that finds the client for a key: one that has the namespace and the prefix of the key."""
    from mageflow.config import Settings

    settings = Settings()
    clients: dict[tuple[str, str], Mageflow] = {}
    async with AsyncExitStack() as stack, open_redis(redis_url, settings) as port:
        url = redis_url or settings.resolved_redis_url()

        async def client_of(key: str) -> "tuple[Mageflow, str]":
            wanted = hatchet_namespace(namespace)
            check_namespace(key, wanted)
            keys, whole_key = await resolve_key(port, settings, key, wanted)
            home = (keys.prefix, keys.namespace)
            if home not in clients:
                clients[home] = _client(url, settings.model_copy(update={"key_prefix": keys.prefix}), keys.namespace)
                stack.push_async_callback(clients[home].aclose)
            return clients[home], whole_key

        yield client_of


def _client(redis_url: str | None, settings: "Settings", namespace: str) -> "Mageflow":
    from hatchet_sdk import Hatchet
    from hatchet_sdk.config import ClientConfig
    from prometheus_client import CollectorRegistry
    from pydantic import ValidationError

    from mageflow.client import Mageflow

    try:
        config = ClientConfig(namespace=namespace)
    except ValidationError as error:
        reason = " ".join(str(error.errors()[0]["msg"]).split()).removeprefix("Value error, ").partition(".")[0]
        raise ConfigurationError(
            f"Hatchet is needed for this, and its configuration is wrong ({reason}): set HATCHET_CLIENT_TOKEN, or run "
            "the command with the engine of this machine: mageflow run -- mageflow ..."
        ) from error
    return Mageflow(Hatchet(config=config), redis_url, settings=settings, registry=CollectorRegistry())


@contextmanager
def _without_log_lines() -> Generator[None]:
    # A warning of the client would stand beside the line of the command that says the same.
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)
