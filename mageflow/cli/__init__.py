"""The command ``mageflow``. Each command has a module of its own, which is imported when the command runs.

This package owns the printed text and the exit status. What a command shows is computed by other packages.
"""

from mageflow.cli.group import main

__all__ = ["main"]
