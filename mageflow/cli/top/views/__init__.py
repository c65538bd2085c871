"""The widgets of the live view. They draw snapshots, as text and never as markup. Imports Textual."""

from mageflow.cli.top.views.app import LiveView

__all__ = ["LiveView"]
