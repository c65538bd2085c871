"""A client of ``mageflow mcp``: the client of the package ``mcp`` over the real stdin and stdout of the command."""

import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from tests.processes.client import READ_AT_IMPORT

__all__ = ["Assistant", "assistant"]


class Assistant:
    """Calls tools as an assistant does."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def text(self, tool: str, **arguments: Any) -> tuple[bool, str]:
        """Whether a tool failed, and the text of its answer."""
        result = await self.client.call_tool(tool, arguments)
        [content] = result.content
        assert result.structured_content is None  # an answer is there once
        return bool(result.is_error), content.text

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The answer of a tool."""
        is_error, text = await self.text(tool, **arguments)
        assert not is_error, text
        return json.loads(text)

    async def error(self, tool: str, **arguments: Any) -> str:
        """The error of a tool: one line."""
        is_error, text = await self.text(tool, **arguments)
        assert is_error, text
        assert "\n" not in text
        return text

    async def whys(self, key: str) -> list[tuple[str, str]]:
        """Why something does not go on."""
        found = await self.call("why_is_it_waiting", key=key)
        return [(each["waits_for"], each["sentence"]) for each in found["reasons"]]


@asynccontextmanager
async def assistant(
    errors: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncGenerator[Assistant]:
    """Start the server as a client does, and talk to it. What it writes to stderr goes to a file.

    A client passes on a few variables. The server gets the locale of the tests too, so that it can be a fork.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_IMPORT)}
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "mageflow", "mcp", *arguments], env=own | dict(environment or {})
    )
    with errors.open("a") as log:
        async with Client(stdio_client(parameters, errlog=log)) as client:
            yield Assistant(client)
