"""``mageflow demo``: a real worker, a real engine and a real Valkey, and what the tasks said about themselves.

This room owns the demonstration: the tasks (`tasks`), what is run (`play`), what was heard (`facts`), what must have
come of it (`expectations`) and how it is shown (`live`, `report`). It refuses to know anything that the worker's
metrics, the spans of both processes or the results of the runs did not tell.
"""

from mageflow.cli.demo.command import demo

__all__ = ["demo"]
