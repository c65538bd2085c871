"""The committed files are the generator's output, and the boards' JSON is valid."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from dashboards.generator.files import contents, write
from dashboards.generator.render.board import render
from dashboards.generator.spec import BoardSpec, Section, stat
from mageflow.dashboards import find_bundle

BUNDLE = find_bundle()
BOARDS = [json.loads(path.read_text(encoding="utf-8")) for path in BUNDLE.boards]
UIDS = ["mageflow-flows", "mageflow-locks", "mageflow-overview", "mageflow-stagger", "mageflow-task"]


def every_panel(board: dict) -> list[dict]:
    return [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]


def test_regeneration_leaves_the_checkout_clean() -> None:
    """The files are equal byte by byte. A manual edit, or a forgotten run of the generator, fails here."""
    for name, text in contents().items():
        assert (BUNDLE.root / name).read_bytes() == text.encode(), f"{name}: run python -m dashboards.generator"


def run_generator(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dashboards.generator", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=200)


def test_command_writes_every_file(root: Path, tmp_path: Path) -> None:
    """``python -m dashboards.generator`` writes all files, with the thresholds and addresses it is given."""
    options = ["--out", str(tmp_path), "--threshold", "queue_wait_seconds=30", "--grafana-url", "https://g"]
    done = run_generator(root, *options)
    assert done.returncode == 0, done.stderr
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(contents())
    rules = (tmp_path / "rules/mageflow-alerts.yml").read_text()
    assert "task:mageflow_task_queue_wait_seconds:p95_5m > 30" in rules
    assert "https://g/d/mageflow-locks" in rules


def test_command_rejects_an_unknown_threshold(root: Path, tmp_path: Path) -> None:
    """The error lists the known thresholds."""
    done = run_generator(root, "--out", str(tmp_path), "--threshold", "queue_wait=30")
    assert done.returncode == 2
    assert "unknown threshold 'queue_wait'" in done.stderr
    assert "queue_wait_seconds" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_old_files_are_deleted(tmp_path: Path) -> None:
    """The generator deletes boards and rule files that it no longer writes."""
    (tmp_path / "grafana").mkdir()
    (tmp_path / "grafana" / "old.json").write_text("{}")
    write(tmp_path)
    made = {path.name for path in (tmp_path / "grafana").iterdir()}
    assert made == {path.name for path in BUNDLE.boards}
    assert {p.name for p in (tmp_path / "rules").iterdir()} == {path.name for path in BUNDLE.rules}


def test_uids_are_fixed() -> None:
    """Links between boards and users' bookmarks depend on the uids."""
    assert [board["uid"] for board in BOARDS] == UIDS


@pytest.mark.parametrize("board", BOARDS, ids=UIDS)
def test_ids_and_references_are_unique(board: dict) -> None:
    """Grafana confuses panels with equal ids and ignores queries with an empty refId."""
    ids = [panel["id"] for panel in every_panel(board)]
    assert len(ids) == len(set(ids))
    assert all(ids)
    for panel in every_panel(board):
        refs = [target["refId"] for target in panel.get("targets", [])]
        assert len(refs) == len(set(refs))
        assert all(refs), panel["title"]


@pytest.mark.parametrize("board", BOARDS, ids=UIDS)
def test_panels_do_not_overlap_and_stay_inside(board: dict) -> None:
    """No panel covers another or leaves the 24 columns."""
    for panels in [board["panels"], *[p["panels"] for p in board["panels"] if p.get("panels")]]:
        for panel in panels:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
        for one, other in combinations([panel["gridPos"] for panel in panels], 2):
            apart = (
                one["x"] + one["w"] <= other["x"]
                or other["x"] + other["w"] <= one["x"]
                or one["y"] + one["h"] <= other["y"]
                or other["y"] + other["h"] <= one["y"]
            )
            assert apart, (board["uid"], one, other)


@pytest.mark.parametrize("board", BOARDS, ids=UIDS)
def test_rows_are_filled_to_the_edge(board: dict) -> None:
    """Every row of the grid is full or empty. A gap looks like a panel that failed to load."""
    cells: dict[int, int] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        for y in range(at["y"], at["y"] + at["h"]):
            cells[y] = cells.get(y, 0) + at["w"]
    ragged = {y: width for y, width in cells.items() if width != 24}
    assert ragged == {}


def test_a_row_with_a_gap_is_refused() -> None:
    """The generator names the section of a panel that was added without room for it."""
    board = BoardSpec("gap", "gap", "", (Section("Half full", (stat("Alone", "short", "vector(1)", "", width=12),)),))
    with pytest.raises(ValueError, match="'Half full': the panels of its last row do not fill 24 columns"):
        render(board)


@pytest.mark.parametrize("board", BOARDS, ids=UIDS)
def test_every_datasource_is_a_variable(board: dict) -> None:
    """With a fixed data source uid, the board would be empty in every other Grafana."""
    uids = {panel["datasource"]["uid"] for panel in every_panel(board) if panel["type"] != "row"}
    uids |= {v["datasource"]["uid"] for v in board["templating"]["list"] if v["type"] == "query"}
    assert uids <= {"${prometheus_datasource}", "${tempo_datasource}", "${loki_datasource}"}
    assert board["schemaVersion"] >= 36


@pytest.mark.parametrize("board", BOARDS, ids=UIDS)
def test_links_lead_to_boards_and_variables_that_exist(board: dict) -> None:
    """A drill-down link keeps data source, job, instance and time, and sets a variable that its target has."""
    variables = {b["uid"]: {v["name"] for v in b["templating"]["list"]} for b in BOARDS}
    links = [
        prop["value"][0]["url"]
        for panel in every_panel(board)
        for override in panel.get("fieldConfig", {}).get("overrides", [])
        for prop in override["properties"]
        if prop["id"] == "links"
    ]
    for url in [url for url in links if url.startswith("/d/")]:
        path, _, query = url.partition("?")
        uid = path.removeprefix("/d/")
        assert uid in variables
        assert query.startswith("var-")
        assert query.split("=")[0].removeprefix("var-") in variables[uid]
        for kept in ("prometheus_datasource", "job", "instance"):
            assert f"${{{kept}:queryparam}}" in query
            assert kept in variables[uid]
        assert "${__url_time_range}" in query


def test_every_board_reaches_every_other() -> None:
    """Each board has a drop-down of all boards by tag, which keeps time and variables, and has the tag itself."""
    for board in BOARDS:
        (link,) = board["links"]
        assert (link["type"], link["tags"], link["keepTime"], link["includeVars"]) == (
            "dashboards", ["mageflow"], True, True,
        )  # fmt: skip
        assert "mageflow" in board["tags"]


def test_drill_down_exists_for_tasks_locks_and_flows() -> None:
    """At least one panel links to the task board, one to the locks board and one to the flows board."""
    text = json.dumps(BOARDS)
    for target in ("/d/mageflow-task?var-task=", "/d/mageflow-locks?var-lock=", "/d/mageflow-flows?var-flow_name="):
        assert target in text
