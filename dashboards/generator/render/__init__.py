"""Turns board data into Grafana's JSON with grafana-foundation-sdk, a development dependency."""
