"""The dictionary is complete, and nothing is called anything else."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from mageflow.interceptors import Attempt, Enqueue
from mageflow.telemetry import names
from mageflow.types import Outcome, Phase, Pool, SignatureKind, Source, Stage

NAME = re.compile(
    r"^(mageflow_[a-z_]+|mageflow\.[a-z]+\.[a-z_]+|(messaging|server|error|exception|code|hatchet)\.[a-z_.]+)$"
)


def test_every_metric_is_well_named():
    """Counters end in ``_total``, histograms have buckets, units are spelt out, help says something."""
    assert len({metric.name for metric in names.METRICS}) == len(names.METRICS)
    for metric in names.METRICS:
        assert re.fullmatch(r"mageflow_[a-z_]+", metric.name)
        assert (metric.kind == "counter") == metric.name.endswith("_total"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name
        assert set(metric.closed) <= set(metric.labels), metric.name
        assert metric.help.endswith("."), metric.name
        assert not metric.exemplars or metric.kind == "histogram", metric.name
        if metric.unit == "s":
            assert metric.name.endswith("_seconds"), metric.name
    assert sum(metric.exemplars for metric in names.METRICS) == 5


def test_closed_values_are_the_words_of_the_types():
    """What the code may say and what the labels may say is the same."""
    for values, words in (
        (names.metrics.OUTCOMES, Outcome),
        (names.metrics.PHASES, Phase),
        (names.metrics.STAGES, Stage),
        (names.metrics.SOURCES, Source),
        (names.metrics.SIGNATURE_KINDS, SignatureKind),
        (names.metrics.POOLS, Pool),
        (names.metrics.ENQUEUE_OPERATIONS, Enqueue.__dataclass_fields__["operation"].type),
    ):
        assert set(values) == set(words.__args__)
    assert Attempt.__dataclass_fields__["phase"].default in names.metrics.PHASES


def test_telemetry_speaks_only_words_of_the_dictionary(root: Path):
    """A name written as a literal outside of ``names`` is a second dictionary."""
    room = root / "mageflow" / "telemetry"
    modules = {".".join(path.relative_to(root).with_suffix("").parts) for path in (root / "mageflow").rglob("*.py")}
    literals = {
        (path.name, node.value)
        for path in room.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.match(node.value)
    }
    loggers_of_the_sdk = {"hatchet.embedded"}
    assert {(path, value) for path, value in literals if value not in modules | loggers_of_the_sdk} == set()


def test_every_metric_of_tasks_and_workers_is_used(root: Path):
    """A name without an instrument would be an empty promise."""
    code = "\n".join(path.read_text() for path in (root / "mageflow").rglob("*.py") if "names" not in path.parts)
    rooms = ("mageflow_task", "mageflow_stagger", "mageflow_timeout", "mageflow_worker", "mageflow_event_loop",
             "mageflow_signature_", "mageflow_redis", "mageflow_telemetry")  # fmt: skip
    constants = {value: name for name, value in vars(names.metrics).items() if isinstance(value, names.Metric)}
    mine = [metric for metric in names.METRICS if metric.name.startswith(rooms)]
    assert len(mine) > 25
    assert [
        metric.name for metric in mine if f"metrics.{constants[metric]}" not in code.replace("names.", "metrics.")
    ] == []


def test_every_constant_of_traces_is_listed_once():
    """Attributes, events and keys have no twins."""
    values = [
        value
        for name, value in vars(names.traces).items()
        if name.isupper() and isinstance(value, str) and name not in ("SCOPE", "HATCHET_SYSTEM")
    ]
    twins = {value for value in values if values.count(value) > 1}
    assert twins == set()
    assert names.ATTRIBUTES
    assert names.SPAN_EVENTS


def test_the_dictionary_needs_nothing_but_the_standard_library():
    """Dashboards, rules and users' code may read it without loading an SDK."""
    program = (
        "import sys; import mageflow.telemetry.names; "
        "print([m for m in ('prometheus_client','opentelemetry','structlog','hatchet_sdk','pydantic','redis') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
