"""Bring about one fault after another while flows run on real workers, and print how the flows ended.

Prints per fault: flows, done, lost, doubled (bodies that had succeeded and ran again), stuck, seconds.
"""

import argparse
import asyncio
import json
import traceback
from dataclasses import asdict

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.run import Row, run, table


def _row(fault: Fault, flows: int, seed: int) -> Row:
    """The row of a fault; a run that fails as a whole does not keep the others from their turn."""
    try:
        return asyncio.run(run(fault, flows, seed))
    except Exception as error:  # noqa: BLE001 - shown with its row
        problem = "".join(traceback.format_exception(error))
        return Row(fault.name, fault.text, seed, flows, lost=flows, problems=[problem])


def _notes(row: Row) -> list[str]:
    notes = [f"  outages that workers reported: {row.outages}"] if row.outages else []
    return [*notes, f"  ran again, success not recorded: {row.unrecorded}"] if row.unrecorded else notes


def main() -> None:
    """Run the faults; the exit status is 1 if a flow did not end as it must."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", choices=[each.name for each in FAULTS], help="only this fault")
    parser.add_argument("--flows", type=int, default=100, help="flows per fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON, with every problem")
    options = parser.parse_args()
    rows: list[Row] = []
    for fault in FAULTS:
        if not options.fault or fault.name in options.fault:
            rows.append(_row(fault, options.flows, options.seed))
            if not options.json:
                print(
                    table(rows[-1:]).splitlines()[-1], *_notes(rows[-1]), *rows[-1].problems[:10], sep="\n", flush=True
                )
    if options.json:
        print(json.dumps([asdict(each) for each in rows], indent=2))
    else:
        print("", table(rows), sep="\n")
    raise SystemExit(0 if all(each.is_right for each in rows) else 1)


if __name__ == "__main__":
    main()
