"""Generates the dashboards, rules, runbook and README in ``dashboards/``. It is not part of the package."""
