"""The page about mistakes shows the sentences that programs get."""

import asyncio
import gc
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from hatchet_sdk import Context, Hatchet
from pydantic import BaseModel

from mageflow import Mageflow
from tests.architecture.mistakes import MISTAKES, sentence


class Order(BaseModel):
    number: int = 0


def shown(root: Path) -> dict[str, str]:
    """The sentence of each mistake on the page, by its title."""
    page = (root / "docs" / "troubleshooting.md").read_text()
    return dict(re.findall(r"^### (.+)\n\n.+?\n\n```text\n(.+)\n```$", page, re.MULTILINE))


def test_the_page_has_every_mistake(root):
    """In the order of the program that makes them."""
    assert list(shown(root)) == list(MISTAKES)
    assert len(MISTAKES) >= 20


@pytest.mark.parametrize("title", MISTAKES)
async def test_a_mistake_gets_the_sentence_of_the_page(title, root, mageflow_engine, mageflow_redis):
    """The mistake is made, with a real client, engine and Valkey."""
    client = Mageflow(Hatchet(), redis_client=mageflow_redis.url)

    assert await sentence(MISTAKES[title], client) == shown(root)[title]
    await client.aclose()


def said_elsewhere(root: Path) -> list[str]:
    """The first column of the table of what the SDK and Python say."""
    page = (root / "docs" / "troubleshooting.md").read_text()
    section = page.partition("## What the SDK and Python say")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)


async def said_by(make: Any) -> str:
    """The error and the warnings of a mistake."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        error = ""
        try:
            await make()
        except Exception as raised:  # noqa: BLE001 - of the SDK, of pydantic or of Python
            error = str(raised)
        gc.collect()  # a coroutine that was not awaited is reported when it is freed
    return "\n".join([error, *(str(each.message) for each in seen)])


async def test_what_the_sdk_and_python_say_is_in_the_table(root, mageflow_engine, mageflow_redis, monkeypatch):
    """Each mistake is made with a real client: no token, no tasks, a task that is called, no await, a dictionary."""
    client = Mageflow(Hatchet(), redis_client=mageflow_redis.url)

    @client.task(name="mistaken")
    async def mistaken(order: Order) -> dict[str, int]:
        return {"number": order.number}

    async def no_token() -> None:
        with monkeypatch.context() as without:
            without.delenv("HATCHET_CLIENT_TOKEN")
            without.chdir(root / "docs")  # a .env file would be read
            Hatchet()

    async def no_tasks() -> None:
        await asyncio.to_thread(client.worker("no-tasks").start)

    async def called() -> None:
        mistaken(Order(number=7))

    async def flow_not_awaited() -> None:
        await client.chain([mistaken, mistaken]).aio_run()

    async def run_not_awaited() -> None:
        mistaken.aio_run(Order(number=7))

    async def dictionary() -> None:
        await mistaken.aio_run({"number": 7}, wait_for_result=False)

    async def without_input_type() -> None:
        @client.task(name="untyped")
        async def untyped(order: Order, ctx: Context) -> dict[str, int]:
            return {"number": order.number}

        message = untyped.input_validator.validate_python({})
        await untyped.aio_mock_run(message)  # type: ignore[arg-type]

    makers = [no_token, no_tasks, called, flow_not_awaited, run_not_awaited, without_input_type, dictionary]
    for text, make in zip(said_elsewhere(root), makers, strict=True):
        assert text in await said_by(make), make.__name__
    await client.aclose()
