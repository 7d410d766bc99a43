"""The command line: ``functrain train | ls | show | diff | verify | export | ...``."""

from functrain.cli.application import main

__all__ = ["main"]
