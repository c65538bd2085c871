"""A Django management command that sends work after its transaction has committed.

In a project the class ``Command`` stands in ``management/commands/place_order.py`` and the tasks in ``tasks.py``; here
both and the settings are one file. Needs ``pip install django``.

Prints::

    order 7 is accepted
    runs: 1
"""

import sys
from argparse import ArgumentParser

from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[],
    USE_TZ=True,
)

import django  # noqa: E402 - the settings come first
from django.core.management import call_command  # noqa: E402 - after configure()
from django.core.management.base import BaseCommand  # noqa: E402 - after configure()
from django.db import transaction  # noqa: E402 - after configure()
from hatchet_sdk import Hatchet  # noqa: E402 - after configure()
from pydantic import BaseModel  # noqa: E402 - after configure()

from mageflow import Mageflow  # noqa: E402 - after configure()

django.setup()
client = Mageflow(Hatchet())
sent: list[str] = []


class Order(BaseModel):
    number: int


@client.task(name="django-ship-order")
def ship_order(order: Order) -> dict[str, int]:
    return {"shipped": order.number}


class Command(BaseCommand):
    help = "Accept an order and send its shipment."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", type=int)

    def handle(self, *args: object, **options: int) -> None:
        number = options["number"]
        with transaction.atomic():
            # A worker may begin before this request ends: send when the order is visible to it.
            transaction.on_commit(lambda: self.send(Order(number=number)))
            self.stdout.write(f"order {number} is accepted")

    def send(self, order: Order) -> None:
        sent.append(ship_order.run(order, wait_for_result=False).workflow_run_id)


if __name__ == "__main__":
    if "worker" in sys.argv:
        client.worker("django-example", workflows=[ship_order]).start()
    else:
        call_command(Command(), "7")
        print("runs:", len(sent))
