"""The comparison with other systems, and the flame graphs of the worker."""

import re
import xml.etree.ElementTree as ET

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import flame
from tests.benchmarks.peers import __main__ as peers

_OUTERMOST = "<module> (/srv/env/lib/python3.11/site-packages/hatchet_sdk/worker/worker.py:10)"
STACKS = f"""\
{_OUTERMOST};run (asyncio/runners.py:118) 3
{_OUTERMOST};run (asyncio/runners.py:119) 1
{_OUTERMOST};call (/srv/mageflow/mageflow/hatchet/runner.py) 4
"""


def test_frames_have_no_folder_of_the_machine() -> None:
    """A frame is named by function and file in its package; lines of one function are one frame."""
    stacks = flame.parse(STACKS)

    outermost = "<module> (hatchet_sdk/worker/worker.py)"
    assert stacks == {
        (outermost, "run (asyncio/runners.py)"): 4,
        (outermost, "call (mageflow/hatchet/runner.py)"): 4,
    }
    assert flame.by_package(stacks) == {"Python": 50.0, "mageflow": 50.0}


def test_a_flame_graph_shows_each_call_under_its_caller() -> None:
    """A box is as wide as its share of the time, and stands where its caller stands."""
    drawn = ET.fromstring(flame.svg(flame.parse(STACKS), "Runs in bulk"))  # noqa: S314 - our own

    name = "{http://www.w3.org/2000/svg}"
    boxes = {box.findtext(f"{name}title"): box.find(f"{name}rect") for box in drawn.iter(f"{name}g")}
    found = {
        title: tuple(float(rect.attrib[key]) for key in ("x", "y", "width"))
        for title, rect in boxes.items()
        if title is not None and rect is not None
    }
    assert found == {
        "<module> (hatchet_sdk/worker/worker.py): 100.0 %": (0.0, 25.5, 1199.5),
        "call (mageflow/hatchet/runner.py): 50.0 %": (0.0, 42.5, 599.5),
        "run (asyncio/runners.py): 50.0 %": (600.0, 42.5, 599.5),
    }


def test_functions_stand_by_the_time_in_themselves() -> None:
    """One column for each kind of run; the function with the highest share of all kinds is first."""
    one = flame.parse("a (x/y.py);b (x/y.py) 3\na (x/y.py) 1")
    other = flame.parse("a (x/y.py) 2")

    assert flame.table({"bulk": one, "signed": other}, rows=2).splitlines() == [
        "| function | bulk | signed |",
        "|---|---|---|",
        "| `a (x/y.py)` | 25.0 % | 100.0 % |",
        "| `b (x/y.py)` | 75.0 % | 0.0 % |",
    ]


def test_the_pictures_of_the_page_are_small_and_name_no_machine() -> None:
    """They are drawn by the command, under 150 KB, with files named from their package on."""
    pictures = {path.name: path.read_text() for path in benchmarks.PICTURES.glob("flame-*.svg")}

    assert pictures.keys() == {f"flame-{kind}.svg" for kind in flame.KINDS}
    assert [name for name in pictures if f"(pictures/{name})" not in benchmarks.PAGE.read_text()] == []
    assert [name for name, picture in pictures.items() if len(picture) > 150_000] == []
    files = {file for picture in pictures.values() for file in re.findall(r"\(([^()]*\.py)\): ", picture)}
    assert any(file.startswith("mageflow/") for file in files)
    assert [file for file in files if file.startswith("/")] == []


def test_added_cpu_and_ratio_are_taken_within_each_round() -> None:
    """A round on a busy machine is compared with itself."""
    found = peers.row([100.0, 200.0, 100.0], [150.0, 300.0, 160.0])

    assert (found["added, us"], found["ratio"]) == (60.0, 1.5)
    assert peers.table({"docket": found}).splitlines()[2:] == ["| docket | 100 | 160 | 60 | 1.50 |"]


def test_the_page_has_a_row_for_each_peer() -> None:
    """The page says what each system records."""
    page = benchmarks.PAGE.read_text().lower()

    assert peers.START.lower() in page
    assert [system for system in peers.SYSTEMS if f"\n| {system} |" not in page] == []
