"""Tasks in a module whose annotations are text at run time."""

from __future__ import annotations

from typing import Annotated, Any

from hatchet_sdk import Context, Depends
from pydantic import BaseModel


class Message(BaseModel):
    x: int = 0


async def double(message: Message, ctx: Context) -> int:
    return message.x * 2


async def on_loop(msg: Message, doubled: Annotated[int, Depends(double)], ctx: Context | None = None) -> dict[str, Any]:
    """Takes a message, a dependency and a context."""
    return {"x": msg.x, "doubled": doubled, "attempt": ctx.attempt_number if ctx else None}


def in_thread(msg: Message, doubled: Annotated[int, Depends(double)], ctx: Context | None = None) -> dict[str, Any]:
    """Takes a message, a dependency and a context."""
    return {"x": msg.x, "doubled": doubled, "attempt": ctx.attempt_number if ctx else None}
