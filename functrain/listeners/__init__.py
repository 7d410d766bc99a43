"""Listeners that come with functrain."""

from functrain.listeners.progress import ProgressBar

__all__ = ["ProgressBar"]
