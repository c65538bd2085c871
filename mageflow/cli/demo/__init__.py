"""``mageflow demo``: tasks of every kind on a real worker, engine and Valkey server, and a report of what happened.

``command`` has the options, ``services`` starts the processes, ``session`` runs and reports. ``shop`` has the tasks and
starts their runs, ``scenario`` lists the runs, ``summary`` collects the numbers, ``expectations`` compares them,
``progress``, ``report`` and ``charts`` show them. Every number comes from metrics, spans, logs or results.
"""

from mageflow.cli.demo.command import demo

__all__ = ["demo"]
