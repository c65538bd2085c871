"""``mageflow dashboards``: copies the shipped dashboards, rules and runbook out of the package, and checks them."""

import shutil
import subprocess
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mageflow.cli.moments import Duration
from mageflow.cli.numbers import FiniteRange

if TYPE_CHECKING:
    from mageflow.dashboards import Bundle, PanelResult

_GROUP_EPILOG = """\b
Examples:
  mageflow dashboards export ./observability
                        writes dashboards, rules and runbook as files
  mageflow dashboards check --prometheus http://127.0.0.1:9090
                        lists the panels that get no data from Prometheus
"""

_EXPORT_EPILOG = """\b
Examples:
  mageflow dashboards export ./observability
  mageflow dashboards export ./observability --slo 99.5
  mageflow dashboards export ./observability --kubernetes
  mageflow dashboards export ./observability --kubernetes --label release=prom

\b
Then:
  Grafana      import grafana/*.json (Dashboards, New, Import),
               or mount provisioning/ and grafana/
  Prometheus   add rules/*.yml to rule_files
  Kubernetes   kubectl apply --server-side -f kubernetes/
  README.md    describes every file and every panel

Exit status: 0 written, 1 DIRECTORY cannot be written, 2 wrong arguments.
"""

_CHECK_EPILOG = """\b
Examples:
  mageflow dashboards check                   checks the shipped files
  mageflow dashboards check ./observability   is this copy up to date?
  mageflow dashboards check --prometheus http://127.0.0.1:9090
                                              which panels get data?
  mageflow dashboards check --prometheus http://127.0.0.1:9090 \\
      --range 1d --rate-interval 4m           the same, for one day

\b
A panel without data is reported, but is not an error: nothing may have
happened in the range.
Exit status: 0 no problem found, 1 a file or a query is wrong,
2 wrong arguments.
"""

_DURATION = Duration(timedelta(seconds=1), bare=timedelta(seconds=1))


@click.group(epilog=_GROUP_EPILOG)
def dashboards() -> None:
    """Export and check the Grafana dashboards, Prometheus rules and runbook."""


def _labels(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for key, sign, _ in pairs:
        if not key or not sign:
            raise click.BadParameter("write KEY=VALUE", context, parameter)
    return {key: value for key, _, value in pairs}


@dashboards.command(epilog=_EXPORT_EPILOG, short_help="Copy all files into DIRECTORY.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--slo", metavar="PERCENT", type=FiniteRange(90, 100, max_open=True),
              help="Share of a task's settled attempts that shall succeed; the error budget alerts use it. "
              "As shipped: 99.")  # fmt: skip
@click.option("--kubernetes", is_flag=True,
              help="Also write DIRECTORY/kubernetes: PodMonitor, ServiceMonitor, PrometheusRule, and the dashboards as "
              "ConfigMaps.")  # fmt: skip
@click.option("--label", "labels", metavar="KEY=VALUE", multiple=True, callback=_labels,
              help="Label of the monitors and the PrometheusRule, by which a Prometheus selects them. "
              "May be repeated.")  # fmt: skip
@click.option("--match-label", "match_labels", metavar="KEY=VALUE", multiple=True, callback=_labels,
              help="Label of the pods or Services to scrape; mageflow.metrics=scrape if not given. "
              "May be repeated.")  # fmt: skip
def export(
    directory: Path, *, slo: float | None, kubernetes: bool, labels: dict[str, str], match_labels: dict[str, str]
) -> None:
    """Copy dashboards, rules, provisioning and runbook into DIRECTORY.

    DIRECTORY is created if it does not exist. Files of the same name are overwritten; other files are not touched.
    """
    from mageflow.dashboards import export as export_bundle
    from mageflow.dashboards import find_bundle, kubernetes_manifests, ratio_of

    if (labels or match_labels) and not kubernetes:
        raise click.UsageError("--label and --match-label are about --kubernetes")
    objective = None if slo is None else ratio_of(slo)
    try:
        bundle = find_bundle()
        count = len(export_bundle(bundle, directory, objective=objective))
        if kubernetes:
            manifests = kubernetes_manifests(
                bundle, objective=objective, labels=labels, match_labels=match_labels or None
            )
            (directory / "kubernetes").mkdir(exist_ok=True)
            for name, text in manifests.items():
                (directory / "kubernetes" / name).write_text(text, encoding="utf-8", newline="\n")
            count += len(manifests)
    except OSError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{count} files written to {directory}; start with {directory / 'README.md'}")


@dashboards.command(epilog=_CHECK_EPILOG, short_help="Check the shipped files, a copy, and panels.")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--prometheus", metavar="URL", help="Send every query of every panel to this Prometheus.")
@click.option("--range", "time_range", metavar="DURATION", type=_DURATION, default="1h", show_default=True,
              help="Length of the time range up to now.")  # fmt: skip
@click.option("--rate-interval", metavar="DURATION", type=_DURATION, default="1m", show_default=True,
              help="Value of $__rate_interval: at least four scrape intervals.")  # fmt: skip
def check(directory: Path | None, prometheus: str | None, time_range: timedelta, rate_interval: timedelta) -> None:
    """Check the shipped files, a copy of them, and which panels get data.

    Always: every query names only metrics, labels and label values that this version of mageflow exports, and promtool
    accepts the rules (if promtool is installed). With DIRECTORY: the copy in it is the same as the shipped files.
    With --prometheus: that Prometheus accepts every query; panels without data are listed.
    """
    from mageflow.dashboards import PrometheusError, call_api, differences, find_bundle, run_panel_queries

    try:
        bundle = find_bundle()
        if prometheus is not None:
            # Fail with one clear line if Prometheus cannot be reached, not with one line per query.
            call_api(prometheus, "/api/v1/query", {"query": "1"})
    except (OSError, PrometheusError) as error:
        raise click.ClickException(str(error)) from error
    problems = _vocabulary_problems(bundle) + _promtool_problems(bundle)
    changed = [] if directory is None else differences(bundle, directory)
    problems += changed
    if prometheus is not None:
        problems += _report(
            run_panel_queries(
                prometheus,
                bundle.boards,
                range_seconds=time_range.total_seconds(),
                rate_interval_seconds=rate_interval.total_seconds(),
            )
        )
    for problem in problems:
        click.echo(click.style("✗ ", fg="red") + problem, err=True)
    if changed:
        options = " --kubernetes" if any(each.startswith("kubernetes") for each in changed) else ""
        click.echo(f"→ the files of this version: mageflow dashboards export {directory}{options}", err=True)
    if problems:
        raise SystemExit(1)
    click.echo(f"{len(bundle.boards)} dashboards and {len(bundle.rules)} rule files are in order")


def _vocabulary_problems(bundle: "Bundle") -> list[str]:
    from mageflow.dashboards import find_problems, panel_queries

    return [
        f"{query.board} / {query.panel}: {problem}"
        for query in panel_queries(bundle.boards)
        for problem in find_problems(query.expr)
    ]


def _promtool_problems(bundle: "Bundle") -> list[str]:
    promtool = shutil.which("promtool")
    if promtool is None:
        click.echo("promtool is not installed: the syntax of the rules was not checked")
        return []
    done = subprocess.run(  # noqa: S603  # a program from the user's PATH, with our own files as arguments
        [promtool, "check", "rules", *map(str, bundle.rules)], capture_output=True, text=True, check=False
    )
    return [] if done.returncode == 0 else [done.stderr.strip() or done.stdout.strip()]


def _report(results: "list[PanelResult]") -> list[str]:
    """Print the panels without data and how many have data; get one line per query that failed."""
    by_panel: dict[tuple[str, str], list[PanelResult]] = defaultdict(list)
    for result in results:
        if not result.query.reads_hatchet:
            by_panel[result.query.board, result.query.panel].append(result)
    with_data = 0
    for (board, panel), group in by_panel.items():
        if all(result.series for result in group):
            with_data += 1
        elif not any(result.error for result in group):
            click.echo(f"  no data: {board} / {panel}")
    click.echo(f"{with_data} of {len(by_panel)} panels have data")
    return [f"{each.query.board} / {each.query.panel}: {each.error}" for each in results if each.error]
