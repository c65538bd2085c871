"""Workers that die at a chosen point, simulated or for real, and the check of what became of their flows.

Both kinds of death share the scenarios, the cases, the verification and the report. ``python -m
tests.flows.crash_injection --crashes 2000`` simulates workers in one process, ``--deaths 2500`` kills processes.
"""
