"""A small shop: the tasks and the load of ``mageflow demo``, of docker-compose.yml and of the dashboard tests.

This package owns the tasks (`Shop`), the ways to start them (`Workload`), their worker (``worker``) and the file of its
spans (``spans``). A workload also counts what its runs will cause, so that a caller can compare these numbers with
metrics. The package does not read metrics and does not print.
"""

from mageflow.cli.demo.shop.tasks import DEADLOCK_PAIR, Order, Receipt, Shop, declare
from mageflow.cli.demo.shop.traffic import send_traffic
from mageflow.cli.demo.shop.workload import CHAIN, SWARM, SWARM_CONCURRENCY, SWARM_ITEMS, Expected, Run, Workload

__all__ = [
    "CHAIN",
    "DEADLOCK_PAIR",
    "SWARM",
    "SWARM_CONCURRENCY",
    "SWARM_ITEMS",
    "Expected",
    "Order",
    "Receipt",
    "Run",
    "Shop",
    "Workload",
    "declare",
    "send_traffic",
]
