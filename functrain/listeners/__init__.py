"""Listeners that come with functrain."""

from functrain.listeners.mirror import Mirror
from functrain.listeners.progress import ProgressBar

__all__ = ["Mirror", "ProgressBar"]
