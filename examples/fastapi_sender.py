"""A web application that sends work, with its metrics: without them, the boards see work that nothing started.

``client.telemetry.asgi_app()`` is mounted beside the application's own routes. Serve it with
``uvicorn examples.fastapi_sender:app`` or any other ASGI server. Needs ``pip install fastapi uvicorn``.

Prints::

    {"run":"..."}
    mageflow_tasks_enqueued_total{task="ship-order",source="direct",result="ok"} 1.0
"""

import asyncio
import sys
import urllib.request

import uvicorn
from fastapi import FastAPI
from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow

client = Mageflow(Hatchet())
app = FastAPI()
app.mount("/metrics", client.telemetry.asgi_app())


class Order(BaseModel):
    number: int


@client.task(name="ship-order")
async def ship_order(order: Order) -> dict[str, int]:
    return {"shipped": order.number}


@app.post("/orders/{number}", status_code=202)
async def place_order(number: int) -> dict[str, str]:
    run = await ship_order.aio_run(Order(number=number), wait_for_result=False)
    return {"run": run.workflow_run_id}


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.05)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    print(await asyncio.to_thread(request, f"{url}/orders/7", "POST"))
    for line in (await asyncio.to_thread(request, f"{url}/metrics", "GET")).splitlines():
        if line.startswith("mageflow_tasks_enqueued_total") and line.endswith("1.0"):
            print(line)
    server.should_exit = True
    await serving


def request(url: str, method: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)) as response:  # noqa: S310 - an own address
        return response.read().decode()


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("fastapi-example", workflows=[ship_order]).start()
    else:
        asyncio.run(main())
