"""A Redis client that fails as no driver should."""

from typing import Any

import redis.asyncio


class Faulty(redis.asyncio.Redis):
    """A client of a user's own, with an error in it."""

    is_faulty = False

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        if self.is_faulty:
            raise LookupError("an error in the driver")
        return await super().execute_command(*args, **options)
