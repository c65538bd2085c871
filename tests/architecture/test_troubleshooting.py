"""The page about mistakes shows the sentences that programs get."""

import re
from pathlib import Path

import pytest
from hatchet_sdk import Hatchet

from mageflow import Mageflow
from tests.architecture.mistakes import MISTAKES, sentence


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
