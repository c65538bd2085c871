"""A plain worker without Redis, run by ``test_plain_worker.py``. Its tasks answer what the process has loaded."""

import sys
from typing import Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())


class Message(BaseModel):
    x: int = 0


@client.task(name="loaded")
async def loaded(msg: Message) -> dict[str, Any]:
    return {"packages": sorted({name.partition(".")[0] for name in sys.modules})}


@client.task(name="loads-structlog")
async def loads_structlog(msg: Message) -> dict[str, Any]:
    was_loaded = "structlog" in sys.modules

    import structlog

    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as records:
        structlog.get_logger().info("mine")
        structlog.contextvars.clear_contextvars()
        structlog.get_logger().info("cleared")
    return {"was_loaded": was_loaded, "records": records}


if __name__ == "__main__":
    client.worker("plain", workflows=[loaded, loads_structlog]).start()
