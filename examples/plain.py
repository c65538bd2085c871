"""A Hatchet program with one changed line: the client is wrapped.

Prints::

    hello ada
    hello bob, hello cyd
"""

import asyncio
import sys

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import AcceptParams, Mageflow

# The changed line. With ALL, functions of the plain client (message and context) run as they are.
hatchet = Mageflow(Hatchet(), param_config=AcceptParams.ALL)


class Name(BaseModel):
    name: str


class Greeting(BaseModel):
    text: str


@hatchet.task(name="greet", input_validator=Name)
async def greet(name: Name, ctx: Context) -> Greeting:
    ctx.log(f"greeting {name.name}")
    return Greeting(text=f"hello {name.name}")


async def main() -> None:
    print((await greet.aio_run(Name(name="ada"))).text)
    many = await greet.aio_run_many([greet.create_bulk_run_item(Name(name=name)) for name in ("bob", "cyd")])
    print(", ".join(greeting.text for greeting in many))


if __name__ == "__main__":
    if "worker" in sys.argv:
        hatchet.worker("plain-example", workflows=[greet]).start()
    else:
        asyncio.run(main())
