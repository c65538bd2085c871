"""A worker with the tasks of ``test_moved_names.py``. It prints what cannot be declared, and its metric of errors."""

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
    errors = REGISTRY.get_sample_value("mageflow_telemetry_errors_total", {"signal": "interceptor"})
    return {"number": msg.number + 2, "errors": int(errors or 0)}


async def locked(msg: Message) -> None:
    raise AssertionError("a body without its locks")


if __name__ == "__main__":
    try:
        client.task(name="moved-locked")(client.exclusive("till")(locked))
    except SdkFeatureError as error:
        print(f"refused: {error}", flush=True)
    client.worker("moved", workflows=[of_loop, of_thread]).start()
