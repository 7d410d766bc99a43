"""Show functrain's values as HTML in notebooks.

The classes know nothing of HTML. IPython, the kernel behind Jupyter, VS Code and Colab, knows them
by name: a module of this room is imported when a value of its class is shown, never before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

# The module of ``functrain.view`` and its function that show the values of a class.
_SHOWN_BY = {
    ("functrain.core.state", "TrainState"): ("state_html", "html"),
    ("functrain.core.program", "Program"): ("values_html", "program_html"),
    ("functrain.core.schedule", "Schedule"): ("schedule_html", "html"),
    ("functrain.training.history", "Run"): ("values_html", "run_html"),
    ("functrain.training.history", "History"): ("values_html", "history_html"),
    ("functrain.tree.compare", "Differences"): ("values_html", "differences_html"),
}


def register() -> None:
    """Teach the running IPython shell to show functrain's values; without one, do nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        load_ipython_extension(shell)


def load_ipython_extension(shell: Any) -> None:
    """Teach a shell to show functrain's values.

    ``import functrain`` does it in a notebook. ``%load_ext functrain.view.notebook`` does it where
    functrain was imported before IPython started.
    """
    if shell.display_formatter is not None:
        formatter = shell.display_formatter.formatters["text/html"]
        for module, name in _SHOWN_BY:
            formatter.for_type_by_name(module, name, html)


def html(value: object) -> str | None:
    """Return the HTML of a value in a notebook, or ``None`` if the notebook shows its repr.

    Example:
        >>> from functrain.schedules import Cosine
        >>> html(Cosine(0.1, steps=100))[:5], html(0.1)
        ('<div ', None)
    """
    for cls in type(value).__mro__:
        # A subclass may have a form of its own; IPython asks registered functions first.
        show: Callable[[object], str | None] | None = vars(cls).get("_repr_html_")
        if show is None and (place := _SHOWN_BY.get((cls.__module__, cls.__name__))):
            show = getattr(import_module(f"functrain.view.{place[0]}"), place[1])
        if show is not None:
            return show(value)
    return None
