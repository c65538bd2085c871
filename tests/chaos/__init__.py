"""Faults of Redis, Hatchet and workers while a hundred flows run, and the check of what became of them.

``python -m tests.chaos`` brings about one fault after another. The flows and the check are those of
`tests.flows.crash_injection`.
"""
