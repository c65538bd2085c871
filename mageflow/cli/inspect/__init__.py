"""``mageflow inspect``: shows one signature, chain or swarm, what it waits for now, and where its time went."""

from mageflow.cli.inspect.command import find_description, inspect

__all__ = ["find_description", "inspect"]
