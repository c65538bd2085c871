"""A worker that may open few files; its task needs a new connection to Redis and one to Hatchet."""

import resource
from typing import Any

from hatchet_sdk import Hatchet

from mageflow import Mageflow

client = Mageflow(Hatchet())
ledger = client.resource("ledger")


@client.task(name="pays")
async def pays(message: dict[str, Any]) -> dict[str, Any]:
    async with ledger.acquire(key=str(message["n"])):
        await client.sign(pays)
        return {"n": message["n"]}


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    client.worker("narrow", workflows=[pays]).start()
