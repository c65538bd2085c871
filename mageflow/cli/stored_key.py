"""The argument ``KEY`` of commands: a key as it is stored, or an id as logs and spans have it."""

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mageflow.errors import ConfigurationError, SignatureNotFoundError

if TYPE_CHECKING:
    from mageflow.config import Settings
    from mageflow.store import Keys, RedisPort

__all__ = ["check_namespace", "resolve_key"]


def check_namespace(key: str, namespace: str) -> None:
    """Refuse a key of another namespace than the one of ``--namespace``.

    Args:
        key: A key or an id.
        namespace: In the form of the SDK.

    Raises:
        ConfigurationError: ``--namespace`` is on the command line, and the key belongs to another namespace.
        SignatureNotFoundError: The key has another shape than a key.
    """
    from mageflow.store import Keys

    if ":" in key and _is_on_command_line("namespace"):
        found = Keys.of(key).namespace
        if found != Keys("", namespace).namespace:
            raise ConfigurationError(
                f"the key belongs to namespace {found!r}, not {namespace!r}: leave --namespace out"
            )


async def resolve_key(port: "RedisPort", settings: "Settings", key: str, namespace: str) -> "tuple[Keys, str]":
    """The whole key that the user means, and the keys of the client that stored it.

    A key is returned as it is. An id costs one round trip for each kind of record.

    Args:
        port: Connects to Redis.
        settings: For the key prefix of an id.
        key: A key or an id; of a member with ``#<path>``.
        namespace: The namespace of Hatchet, for an id.

    Raises:
        SignatureNotFoundError: It is neither, or no record has this id.
    """
    from mageflow.store import Keys, find_records, split_member_key

    if ":" in key:
        return Keys.of(key), key
    try:
        identity, path = split_member_key(key)
    except ValueError:
        raise SignatureNotFoundError(key) from None
    found = await find_records(port, settings, namespace, identity)
    if not found:
        raise SignatureNotFoundError(key)
    return Keys.of(found[0]), path.key(found[0])


def _is_on_command_line(parameter: str) -> bool:
    """Whether the user gave this option. False if its value is from the environment or its default."""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.COMMANDLINE
