"""A worker with the tasks of ``test_moved_names.py``. It prints what cannot be declared, and its metric of errors."""

from typing import Any

from hatchet_sdk import Hatchet
from prometheus_client import REGISTRY
from pydantic import BaseModel

from mageflow import Mageflow
from mageflow.errors import SdkFeatureError

client = Mageflow(Hatchet())


class Message(BaseModel):
    number: int = 0


@client.task(name="moved-async")
async def of_loop(msg: Message) -> dict[str, int]:
    return {"number": msg.number + 1}


@client.task(name="moved-sync")
@client.with_ctx
def of_thread(msg: Message, ctx: object) -> dict[str, int]:
    return {"number": msg.number + 2, "errors": sample("mageflow_telemetry_errors_total", signal="interceptor")}


@client.task(name="moved-parent")
async def parent(msg: Message) -> dict[str, Any]:
    signature = await client.sign(of_loop, number=5)
    ended = await signature.aio_run() == {"number": 6}
    return {
        "signed": ended,
        "sent": sample("mageflow_tasks_enqueued_total", task="moved-async", source="signature", result="ok"),
        "runs": sample("mageflow_task_runs_total", task="moved-async", outcome="succeeded"),
    }


def sample(name: str, **labels: str) -> int:
    return int(REGISTRY.get_sample_value(name, labels) or 0)


async def locked(msg: Message) -> None:
    raise AssertionError("a body without its locks")


both = client.workflow(name="moved-both", input_validator=Message)


@both.task(name="moved-first")
async def first(msg: Message) -> dict[str, int]:
    return {"number": msg.number + 3}


if __name__ == "__main__":
    try:
        client.task(name="moved-locked")(client.exclusive("till")(locked))
    except SdkFeatureError as error:
        print(f"refused: {error}", flush=True)
    client.worker("moved", workflows=[of_loop, of_thread, parent, both]).start()
