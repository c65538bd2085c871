"""Grafana's published library of board types reads every committed board, and writes the same fields.

`grafana_foundation_sdk` is generated from Grafana's schemas of dashboards, panels and data sources. A field that it
does not know is lost on the way, so a misspelled or misplaced field shows here. No Grafana runs.
"""

import copy
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from mageflow.dashboards import find_bundle

BOARDS = [json.loads(path.read_text(encoding="utf-8")) for path in find_bundle().boards]

KNOWN = {
    r"\.annotations\.list\.(titleFormat|textFormat|tagKeys)": "read by the Prometheus data source, which has no schema",
    r"\.annotations\.list\.target\.(expr|interval|refId)": "the query of the annotation, for the same data source",
    r"\.panels\.options\.wideLayout": "newer than the library, which describes Grafana 10.1",
    r"\.panels(\.panels)?\.targets\.tableType": "of TraceQL queries, newer than the library too",
}
"""Fields that the library does not know, each with the reason why it is right."""


def lost(before: Any, after: Any, at: str = "") -> set[str]:
    """The fields that are missing in the second document or have another value there."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = {f"{at}.{name}" for name in before if name not in after}
        return missing.union(*(lost(before[name], after[name], f"{at}.{name}") for name in before if name in after))
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return set[str]().union(*(lost(*pair, at) for pair in zip(before, after, strict=True)))
    return set() if before == after else {at}


def through_the_library(board: dict[str, Any]) -> dict[str, Any]:
    """The board after the library has read and written it."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(copy.deepcopy(board))))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_the_library_knows_every_field(board: dict[str, Any]) -> None:
    """It can read each board, and loses only what `KNOWN` explains."""
    found = lost(board, through_the_library(board))

    assert {path for path in found if not any(re.fullmatch(each, path) for each in KNOWN)} == set()


def test_what_is_known_is_still_needed() -> None:
    """Every exception occurs on a board."""
    found = set[str]().union(*(lost(board, through_the_library(board)) for board in BOARDS))

    assert [each for each in KNOWN if not any(re.fullmatch(each, path) for path in found)] == []


def test_a_misspelled_field_is_found() -> None:
    """In a panel's options, its fields, its queries and the board itself."""
    board = copy.deepcopy(BOARDS[0])
    board["timezon"] = "browser"
    panel = next(each for each in board["panels"] if each["type"] == "timeseries")
    panel["options"]["legend"]["placment"] = "bottom"
    panel["fieldConfig"]["defaults"]["custom"]["lineWith"] = 2
    panel["targets"][0]["legend"] = "x"

    found = {path.rpartition(".")[2] for path in lost(board, through_the_library(board))}
    assert {"timezon", "placment", "lineWith", "legend"} <= found
