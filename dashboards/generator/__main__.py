"""``python -m dashboards.generator``: write ``dashboards/`` anew."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from dashboards.generator.rules import Addresses, Thresholds

_DEFAULT = Path(__file__).parents[1]


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    known = [each.name for each in fields(Thresholds)]
    if name not in known:
        raise argparse.ArgumentTypeError(f"unknown threshold {name!r}; known: {', '.join(known)}")
    return name, float(value)


def main(arguments: list[str] | None = None) -> int:
    """Run the generator; 0 when it wrote everything."""
    parser = argparse.ArgumentParser(prog="python -m dashboards.generator", description="Write dashboards/ anew.")
    parser.add_argument("--out", type=Path, default=_DEFAULT, help="directory to write into (default: dashboards/)")
    parser.add_argument("--threshold", type=_threshold, action="append", default=[], metavar="NAME=VALUE",
                        help="change when an alert fires, e.g. queue_wait_seconds=30; may be repeated")  # fmt: skip
    parser.add_argument("--runbook-url", default=Addresses().runbook, help="where the runbook can be read")
    parser.add_argument("--grafana-url", default=Addresses().grafana, help="where Grafana is")
    chosen = parser.parse_args(arguments)
    try:
        from dashboards.generator.files import write  # noqa: PLC0415  # the development dependency is needed only now
    except ModuleNotFoundError as error:
        parser.error(f"{error}; the generator needs the development extra: pip install -e '.[test]'")
    addresses = Addresses(chosen.runbook_url, chosen.grafana_url)
    for path in write(chosen.out, Thresholds(**dict(chosen.threshold)), addresses):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
