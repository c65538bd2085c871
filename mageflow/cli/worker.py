"""``mageflow worker``: runs the worker of a module, after it has checked what the worker needs."""

import sys

import click

from mageflow.terminal import printable

__all__ = ["worker"]

_EPILOG = """\b
Examples:
  mageflow worker shop.tasks                 every task of the client
  mageflow worker shop/tasks.py:client       a file, and which client
  mageflow worker shop.tasks --slots 20      20 tasks at a time
  mageflow worker shop.tasks --check         only check, for a pipeline

\b
Checks first that Hatchet answers and takes the token, that Redis answers
(if the client has one) and that no two tasks share a name. Each trouble is
one sentence. Unless the module calls telemetry.configure itself, the log is
JSON, and text in a terminal.
Exit status: 0 stopped by Ctrl-C or SIGTERM, 1 a check failed, 2 wrong
arguments, or a module that cannot be imported.
"""


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="MODULE[:CLIENT]")
@click.option("--name", help="Name of the worker in Hatchet and in telemetry. Default: the name of the module.")
@click.option("--slots", type=click.IntRange(1, 100_000), help="How many tasks run at a time. Default: 100.")
@click.option(
    "--durable-slots", type=click.IntRange(1, 100_000), help="How many durable tasks run at a time. Default: 1000."
)
@click.option(
    "--logs",
    type=click.Choice(["json", "console", "none"]),
    help="How the log is written; none sets up no logging. Wins over the module.",
)
@click.option("--check", is_flag=True, help="Do not start the worker: only check.")
def worker(
    target: str, name: str | None, slots: int | None, durable_slots: int | None, logs: str | None, *, check: bool
) -> None:
    """Run a worker with every task and workflow that the client of MODULE has declared."""
    from mageflow.cli.program import load_client, troubles_of

    client, module = load_client(target)
    troubles = 0
    for trouble in troubles_of(client):
        troubles += 1
        click.echo(printable(f"mageflow: {trouble}"), err=True)
    if troubles:
        raise SystemExit(1)
    count = len(client.declared_workflows)
    if check:
        click.echo(f"{module} can run: {count} {'task or workflow' if count == 1 else 'tasks and workflows'}.")
        return
    _set_up_logs(name or module, logs)
    client.worker(name or module, slots, durable_slots, workflows=client.declared_workflows).start()


def _set_up_logs(service_name: str, logs: str | None) -> None:
    from mageflow import telemetry
    from mageflow.telemetry.child_logs import prepare_logs_of_child

    has_own = prepare_logs_of_child() is not None
    if logs == "none" or (logs is None and has_own):
        return
    telemetry.configure(
        service_name=service_name,
        logs="json" if logs == "json" or (logs is None and not sys.stderr.isatty()) else "console",
    )
