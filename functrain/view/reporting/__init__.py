"""What became of a run: its history as a table, and a page about all of it."""

from functrain.view.reporting.page import report

__all__ = ["report"]
