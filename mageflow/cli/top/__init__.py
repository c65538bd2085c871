"""``mageflow top``: the live view of workers, locks, staggers, flows and errors.

``sources`` reads and gives typed snapshots; ``views`` draws them with Textual. Only the command itself imports Textual.
"""

from mageflow.cli.top.command import top

__all__ = ["top"]
