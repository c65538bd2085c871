"""The command line of the doctor."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mageflow.cli.doctor.findings import Finding, Level, failure, fine, skipped
from mageflow.terminal import json_text

if TYPE_CHECKING:
    from mageflow.config import Settings

__all__ = ["doctor"]

_EPILOG = """\b
Examples:
  mageflow doctor                         what this shell's variables lead to
  mageflow doctor shop.tasks              also the module of a worker
  mageflow run -- mageflow doctor         the engine on this machine
  mageflow doctor --json | jq '.findings[] | select(.level != "ok")'

\b
Checks: versions distribution otlp settings token engine latency rest clock
workers redis redis-server redis-rights redis-persistence redis-latency
redis-clock ports module inputs loggers instrumentor. Starts nothing; in
Redis it writes one key and deletes it.
Exit status: 0 no failure (there may be warnings), 1 a failure, 2 wrong
arguments.
"""

_MARKS: dict[Level, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "failure": ("failure", "bold red"),
    "skipped": ("skipped", "dim"),
}


@click.command(epilog=_EPILOG)
@click.argument("target", metavar="[MODULE[:CLIENT]]", required=False)
@click.option("--redis-url", metavar="URL", help="URL of Redis. Default: MAGEFLOW_REDIS_URL or REDIS_URL.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(target: str | None, redis_url: str | None, *, as_json: bool) -> None:
    """Check what workers and callers depend on, and say how to repair what is wrong.

    With MODULE also imports the module of a worker, and examines its client, the input types of its tasks,
    its loggers and the SDK's instrumentor.
    """
    findings: list[Finding] = []
    show = None if as_json else _printer()
    for finding in _examine(target, redis_url):
        findings.append(finding)
        if show is not None:
            show(finding)
    counts = {level: sum(each.level == level for each in findings) for level in _MARKS}
    if as_json:
        click.echo(json_text({"ok": not counts["failure"], "counts": counts, "findings": list(map(asdict, findings))}))
    else:
        click.echo(", ".join(f"{count} {level}" for level, count in counts.items() if count))
    if counts["failure"]:
        raise SystemExit(1)


def _printer() -> "Callable[[Finding], None]":
    from rich.table import Table
    from rich.text import Text

    from mageflow.cli.console import TABLE_WIDTH, DataConsole, data, print_folded

    console = DataConsole()

    def show_narrow(finding: Finding) -> None:
        mark, style = _MARKS[finding.level]
        console.print(Text.assemble((mark, style), " ", (finding.check, "bold")), soft_wrap=True)
        print_folded(console, "", finding.statement)
        if finding.mend:
            print_folded(console, "→", finding.mend)

    def show(finding: Finding) -> None:
        mark, style = _MARKS[finding.level]
        said = data(finding.statement)
        if finding.mend:
            said.append("\n→ ").append(data(finding.mend, "cyan"))
        table = Table.grid(padding=(0, 1))
        table.add_column(width=7, no_wrap=True)
        table.add_column(width=17)
        table.add_column(overflow="fold")
        table.add_row(Text(mark, style), Text(finding.check, "bold"), said)
        console.print(table)

    return show if console.width >= TABLE_WIDTH else show_narrow


def _examine(target: str | None, redis_url: str | None) -> Iterator[Finding]:
    from mageflow.cli.doctor.hatchet import examine_hatchet, read_config
    from mageflow.cli.doctor.installation import examine_installation, examine_port, examine_settings

    yield from examine_installation()
    settings, found = examine_settings()
    yield from found
    config, found = read_config()
    yield from found
    if config is not None:
        yield from examine_hatchet(config)
    if settings is not None:
        yield from asyncio.run(_redis(redis_url, settings))
        yield examine_port(settings)
    yield from _module(target)


async def _redis(url: str | None, settings: "Settings") -> list[Finding]:
    from mageflow.cli.doctor.redis import examine_redis

    return [each async for each in examine_redis(url, settings)]


def _module(target: str | None) -> Iterator[Finding]:
    if target is None:
        yield skipped("module", "No module was named.", "write mageflow doctor MODULE, the module of your worker")
        return
    from mageflow.cli.doctor.declarations import examine_inputs
    from mageflow.cli.doctor.installation import examine_loggers
    from mageflow.cli.program import load_client
    from mageflow.errors import ConfigurationError

    try:
        client, name = load_client(target)
    except ConfigurationError as error:
        yield failure(
            "module", f"{target} cannot be used: {error}.", "correct it; mageflow worker runs the same import"
        )
        return
    for each in client.repeated_names:
        yield failure("module", f"Two tasks are named {each!r}: Hatchet runs one of them.", "give each its own name")
    count = len(client.declared_workflows)
    if count:
        yield fine("module", f"{name} declares {count} {'task or workflow' if count == 1 else 'tasks and workflows'}.")
    else:
        yield failure("module", f"{name} declares no task.", "declare tasks, or import the modules that do")
    yield from examine_inputs(client)
    yield from examine_loggers()
