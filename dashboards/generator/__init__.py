"""Generates the dashboards, rules, runbook and README in ``dashboards/``: ``python -m dashboards.generator``.

This package is not in the wheel. It imports two things of mageflow: the names of the signals, from which it builds
every query, and the checks of `mageflow.dashboards`. Only `render` needs the development dependency
grafana-foundation-sdk. Nothing in the generated files depends on one installation: no job name, no data source uid,
no host.
"""
