"""``mageflow top``: the live view of workers, locks, staggers, flows and errors.

``sources`` reads and gives typed snapshots; ``views`` draws them with Textual. Only the command itself imports Textual.
"""

from mageflow.cli.top.command import open_reader, top

__all__ = ["open_reader", "top"]
