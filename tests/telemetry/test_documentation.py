"""``docs/telemetry.md`` is current, and says what every name means."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from mageflow.config import Settings
from mageflow.metadata import OWN_KEYS, SHARED_KEYS
from mageflow.telemetry import names


@pytest.fixture
def tables(root: Path) -> Any:
    """``docs/telemetry_tables.py``."""
    spec = importlib.util.spec_from_file_location("telemetry_tables", root / "docs" / "telemetry_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "telemetry.md").read_text()


def test_the_tables_are_current(tables: Any, page: str):
    """Write them with ``poe telemetry-tables``."""
    assert tables.page_with_tables(page) == page
    assert set(re.findall(r"<!-- table: (\w+) -->", page)) == set(tables.TABLES)


def test_the_tables_name_every_metric_span_and_log_event(page: str):
    """A table that lost its rows would be current, too."""
    written = (
        *(metric.name for metric in names.METRICS),
        *(span.template for span in names.SPANS),
        *(event.name for event in names.EVENTS),
    )
    assert [name for name in written if f"`{name}`" not in page] == []


def test_every_attribute_and_span_event_is_explained(page: str):
    """By its name; which span has it is in the table of spans."""
    assert [name for name in sorted(names.ATTRIBUTES | names.SPAN_EVENTS) if f"`{name}`" not in page] == []


def test_every_setting_the_page_names_exists(page: str):
    """A setting that was renamed is a lie here."""
    variables = {f"MAGEFLOW_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"MAGEFLOW_[A-Z_]+", page)) <= variables


def test_every_metadata_key_is_in_the_table_of_its_module():
    """Who writes it and who reads it."""
    import mageflow.metadata

    assert [key for key in (*OWN_KEYS, *SHARED_KEYS) if f"``{key}``" not in (mageflow.metadata.__doc__ or "")] == []
