"""``mageflow dashboards``: take the shipped boards and rules out of the package, and check them."""

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mageflow.dashboards import Answer, Bundle

_NOT_OURS = ("Engine backlog (needs Hatchet's own metrics)",)


@click.group()
def dashboards() -> None:
    """Export and check the Grafana dashboards, Prometheus rules and runbook."""


@dashboards.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
def export(directory: Path) -> None:
    """Copy dashboards, rules, provisioning, data sources and runbook into DIRECTORY."""
    from mageflow.dashboards import export as export_bundle
    from mageflow.dashboards import find_bundle

    try:
        written = export_bundle(find_bundle(), directory)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{len(written)} files written to {directory}; start with {directory / 'README.md'}")


@dashboards.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--prometheus", metavar="URL", help="Ask this Prometheus every query of every panel.")
@click.option("--range", "range_seconds", type=click.FloatRange(min=1), default=3600.0, show_default=True,
              help="How many seconds back to ask for.")  # fmt: skip
@click.option("--rate-interval", type=click.FloatRange(min=1), default=60.0, show_default=True,
              help="Seconds for $__rate_interval; at least four scrape intervals.")  # fmt: skip
def check(directory: Path | None, prometheus: str | None, range_seconds: float, rate_interval: float) -> None:
    """Check the shipped files, a copy of them in DIRECTORY, and what a Prometheus answers to them.

    Without options: every query names only metrics, labels and values this version of mageflow has, and promtool,
    where it is installed, accepts the rules. With DIRECTORY: the copy is what this version ships. With --prometheus:
    which panels have an answer. Exits with 1 when a file or a query is wrong; an empty panel is reported, no more.
    """
    from mageflow.dashboards import PrometheusError, ask, ask_panels, differences, find_bundle

    try:
        bundle = find_bundle()
        if prometheus is not None:
            ask(prometheus, "/api/v1/query", {"query": "1"})  # one clear line instead of one for each query
    except (OSError, PrometheusError) as error:
        raise click.ClickException(str(error)) from error
    problems = _vocabulary_problems(bundle) + _promtool_problems(bundle)
    if directory is not None:
        problems += differences(bundle, directory)
    if prometheus is not None:
        answers = ask_panels(
            prometheus, bundle.boards, range_seconds=range_seconds, rate_interval_seconds=rate_interval
        )
        problems += _report(answers)
    for problem in problems:
        click.echo(click.style("✗ ", fg="red") + problem, err=True)
    if problems:
        raise SystemExit(1)
    click.echo(f"{len(bundle.boards)} dashboards and {len(bundle.rules)} rule files are in order")


def _vocabulary_problems(bundle: "Bundle") -> list[str]:
    from mageflow.dashboards import panel_queries, problems_of

    return [
        f"{query.board} / {query.panel}: {problem}"
        for query in panel_queries(bundle.boards)
        for problem in problems_of(query.expr)
    ]


def _promtool_problems(bundle: "Bundle") -> list[str]:
    promtool = shutil.which("promtool")
    if promtool is None:
        click.echo("promtool is not installed: the rules' syntax was not checked")
        return []
    done = subprocess.run(  # noqa: S603  # a program of the user's PATH over files of ours
        [promtool, "check", "rules", *map(str, bundle.rules)], capture_output=True, text=True, check=False
    )
    return [] if done.returncode == 0 else [done.stderr.strip() or done.stdout.strip()]


def _report(answers: "list[Answer]") -> list[str]:
    by_panel: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.query.section not in _NOT_OURS:
            by_panel[answer.query.board, answer.query.panel].append(answer)
    answered = 0
    for (board, panel), group in by_panel.items():
        if all(answer.series for answer in group):
            answered += 1
        elif not any(answer.error for answer in group):
            click.echo(f"  empty: {board} / {panel}")
    click.echo(f"{answered} of {len(by_panel)} panels have an answer")
    return [f"{a.query.board} / {a.query.panel}: {a.error}" for a in answers if a.error]
