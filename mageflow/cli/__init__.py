"""The command ``mageflow``: one file per command, each imported when it is run.

This room owns what is printed and the exit status. It refuses to do anything itself: a command calls another room
and shows what it said.
"""

from mageflow.cli.group import main

__all__ = ["main"]
