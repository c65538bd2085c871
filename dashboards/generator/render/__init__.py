"""Turns the data of a board into Grafana's JSON, with the development dependency grafana-foundation-sdk."""
