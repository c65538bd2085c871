"""LogQL for the boards, over the JSON lines of `mageflow.telemetry.configure`.

A query selects every stream and then looks at the fields of the lines, so it works for any labels that an agent sets.
"""

from typing import Final

from mageflow.telemetry.names import EVENTS
from mageflow.telemetry.names.events import CONTEXT_FIELDS, TRACE_FIELDS

LINE_FIELDS: Final = frozenset(
    {"event", "level", "timestamp", "logger", *CONTEXT_FIELDS, *TRACE_FIELDS}
    | {field for event in EVENTS for field in event.fields}
)
"""Every field that a line of mageflow may have."""

_STREAMS: Final = '{service_name=~".+"}'
_SHOWN: Final = ("task", "attempt", "flow", "lock", "outcome", "exception", "reason", "worker", "run_id")
"""What a log panel shows of a line beside its event, if the line has it. A click on the line shows all fields."""


def field(name: str) -> str:
    """The name of a field of a line, checked.

    Raises:
        ValueError: No log event has this field.
    """
    if name not in LINE_FIELDS:
        raise ValueError(f"no log event has the field {name}")
    return name


def lines_with(name: str, condition: str) -> str:
    """The lines that have a field and fulfil a condition on the labels that ``json`` makes.

    Args:
        name: The field. A line without its name in quotes is not parsed.
        condition: A label filter.
    """
    shown = "".join(f"{{{{if .{field(each)}}}}} {each}={{{{.{each}}}}}{{{{end}}}}" for each in _SHOWN)
    return f'{_STREAMS} |= `"{field(name)}"` | json | {condition} | line_format `{{{{.event}}}}{shown}`'


def one_row_per_line(event: str, columns: dict[str, str], condition: str) -> str:
    """The lines of one event in the visible range as rows: for a table.

    Args:
        event: The name of the event.
        columns: For each column the expression of LogQL's ``json`` that gives its value.
        condition: A label filter over columns.
    """
    for expression in columns.values():
        field(expression.split(".")[0].split("[")[0])
    known = next(each for each in EVENTS if each.name == event)
    extracted = ", ".join(f'{name}="{expression}"' for name, expression in columns.items())
    return (
        f"sum by ({', '.join(columns)}) (count_over_time({_STREAMS} |= `{known.name}` "
        f'| json event="event", {extracted} | event="{known.name}" | {condition} [$__range]))'
    )
