"""The decorators work on the tasks of a workflow. Each task has its own name in spans, log events and metrics.

Prints::

    {'fetched': 3}
    {'stored': 3, 'of': 3}
"""

import asyncio
import sys
from datetime import timedelta

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Source(BaseModel):
    pages: int


crawl = client.workflow(name="crawl", input_validator=Source)


@crawl.task()
async def fetch(source: Source) -> dict[str, int]:
    return {"fetched": source.pages}


@crawl.task(parents=[fetch])
@client.stagger_execution(wait_delta=timedelta(milliseconds=300))
@client.with_ctx
async def store(source: Source, ctx: Context) -> dict[str, int]:
    return {"stored": ctx.task_output(fetch)["fetched"], "of": source.pages}


async def main() -> None:
    result = await crawl.aio_run(Source(pages=3))
    print(result["fetch"])
    print(result["store"])


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("workflow-example", workflows=[crawl]).start()
    else:
        asyncio.run(main())
