"""The tasks of a module as they are declared: whether each gets the type that its function names."""

from collections.abc import Iterator

from mageflow.cli.doctor.findings import Finding, fine, warning
from mageflow.client import Mageflow
from mageflow.hatchet import unused_input_types

__all__ = ["examine_inputs"]


def examine_inputs(client: Mageflow) -> Iterator[Finding]:
    """Whether a function names an input type that its declaration does not use."""
    unused = list(unused_input_types(client.declared_workflows))
    for function, kind, line in unused:
        yield warning(
            "inputs",
            f"{function}() takes {kind} and gets an EmptyModel: as in Hatchet, its message is not checked, and a field "
            "that is not sent has no default.",
            f"write {line}",
        )
    if client.declared_workflows and not unused:
        yield fine("inputs", "Each function gets its message in the type that it names.")
