"""A worker program like a user's. The tests of the plugin start it in a process of its own."""

import sys

from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

hatchet = Hatchet()


class Name(BaseModel):
    name: str


class Greeting(BaseModel):
    text: str


@hatchet.task(name="greet", input_validator=Name)
def greet(message: Name, ctx: Context) -> Greeting:
    """Greet, and print it."""
    print(f"greeting {message.name}")
    return Greeting(text=f"hello {message.name}")


if __name__ == "__main__":
    if "fail" in sys.argv:
        sys.exit("this worker was asked to fail")
    hatchet.worker("greeter", workflows=[greet]).start()
