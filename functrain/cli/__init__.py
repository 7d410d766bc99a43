"""The command line: ``functrain train | diff | ls | show | plot | generate``."""

from functrain.cli.application import main

__all__ = ["main"]
