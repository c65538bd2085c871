"""A worker that sends spans, metrics and logs by OTLP; its task notes in the log when its work ends."""

import asyncio
import time
from typing import Any

from hatchet_sdk import ClientConfig, Hatchet

from mageflow import Mageflow, telemetry

client = Mageflow(Hatchet(config=ClientConfig()))


@client.task(name="exports")
async def exports(message: dict[str, Any]) -> dict[str, Any]:
    print("BEGAN", flush=True)
    await asyncio.sleep(2)
    print(f"ENDED {time.time()}", flush=True)
    return {}


if __name__ == "__main__":
    telemetry.configure(service_name="exports")
    client.worker("exports", workflows=[exports]).start()
