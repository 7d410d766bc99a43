"""The command line: ``functrain train | ls | show | diff | verify | export | ...``.

Begin with ``entry_point.py``; each command has a file of its own.
"""

from functrain.cli.entry_point import main

__all__ = ["main"]
