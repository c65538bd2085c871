"""A program that sends runs that no worker takes and ends while they are looked up; the argument says how.

``python -m tests.integration.sends_and_ends``. Its looks take longer than its end, so that the end always comes in one.
"""

import threading
import time

from hatchet_sdk import Hatchet

from mageflow import Mageflow, Settings

RUNS = 60

client = Mageflow(Hatchet(), settings=Settings(metrics_port=0, unserved_warning_seconds=0.1))


def serves_nothing(message: dict) -> dict:
    """No worker has it."""
    return {}


for number in range(RUNS):
    client.task(name=f"sent-and-left-{number}")(serves_nothing).run({}, wait_for_result=False)
deadline = time.monotonic() + 30
while not any(each.name == "mageflow-unserved" for each in threading.enumerate()):
    assert time.monotonic() < deadline
print("ends", flush=True)
