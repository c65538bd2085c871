"""Processes that really die, cheaply: what `tests.flows.deaths` is made of."""
