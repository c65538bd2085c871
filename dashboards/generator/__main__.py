"""``python -m dashboards.generator``: writes the generated files in ``dashboards/``."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from dashboards.generator.rules import Addresses, Thresholds

_DEFAULT_TARGET = Path(__file__).parents[1]


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    known = [each.name for each in fields(Thresholds)]
    if name not in known:
        raise argparse.ArgumentTypeError(f"unknown threshold {name!r}; known: {', '.join(known)}")
    return name, float(value)


def main(arguments: list[str] | None = None) -> int:
    """Run the generator and get the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.generator", description="Write the dashboards, rules, runbook and README."
    )
    parser.add_argument("--out", type=Path, default=_DEFAULT_TARGET, help="target directory (default: dashboards/)")
    parser.add_argument("--threshold", type=_threshold, action="append", default=[], metavar="NAME=VALUE",
                        help="change when an alert fires, e.g. queue_wait_seconds=30; may be repeated")  # fmt: skip
    parser.add_argument("--runbook-url", default=Addresses().runbook, help="address of the runbook, for the alerts")
    parser.add_argument("--grafana-url", default=Addresses().grafana, help="address of Grafana, for the alerts")
    chosen = parser.parse_args(arguments)
    try:
        from dashboards.generator.files import write  # noqa: PLC0415  # --help works without grafana-foundation-sdk
    except ModuleNotFoundError as error:
        parser.error(f"{error}; the generator needs the development extra: pip install -e '.[test]'")
    addresses = Addresses(chosen.runbook_url, chosen.grafana_url)
    for path in write(chosen.out, Thresholds(**dict(chosen.threshold)), addresses):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
