"""A signature is a stored task with arguments and identifiers: sign it now, run it later, read its status.

Prints::

    stored for ada: pending
    the signature in the task: send-letter for {'customer': 'ada'}
    afterwards: done, after 1 attempt
"""

import asyncio
import sys
from typing import Any

from hatchet_sdk import Hatchet
from pydantic import BaseModel

from mageflow import Mageflow, TaskSignature

client = Mageflow(Hatchet())


class Letter(BaseModel):
    to: str
    text: str


@client.task(name="send-letter")
@client.with_signature
async def send_letter(letter: Letter, signature: TaskSignature) -> dict[str, Any]:
    return {"sent": f"{letter.text} {letter.to}", "by": signature.task_name, "for": signature.task_identifiers}


async def main() -> None:
    signature = await client.sign(send_letter, task_identifiers={"customer": "ada"}, to="ada", text="dear")
    print(f"stored for {signature.task_identifiers['customer']}: {signature.status}")

    # Any process with the same Redis can do this. Values of a message passed here replace the bound ones.
    stored = await client.load_signature(signature.key)
    letter = await stored.aio_run()
    print(f"the signature in the task: {letter['by']} for {letter['for']}")

    now = await client.load_signature(signature.key)
    print(f"afterwards: {now.status}, after {now.attempts} attempt")


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("signature-example", workflows=[send_letter]).start()
    else:
        asyncio.run(main())
