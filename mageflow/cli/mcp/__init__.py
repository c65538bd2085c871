"""``mageflow mcp``: a server of the Model Context Protocol, with which an assistant reads what runs and what waits.

``sources`` opens what is read, ``waits`` says why a run does not go on, ``answers`` keeps answers short, ``tools`` has
the tools, and ``server`` offers them. Only ``server`` imports the package ``mcp``.
"""

from mageflow.cli.mcp.command import mcp

__all__ = ["mcp"]
