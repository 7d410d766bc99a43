"""Pages and HTML for people: a run as a report, values in a notebook.

Begin with ``notebook.py`` and ``run_report.py``.

* ``notebook``: which module shows which class, and IPython's formatters;
  ``state_html``, ``schedule_html`` and ``values_html`` make the HTML, from ``blocks``
  and ``value_summary``.
* ``run_report``: one run as one page; ``report_facts`` reads the run directory and logs,
  ``report_findings`` judges whether the run has ended and collects problems.
* ``page``: charts as SVG, an HTML page, and a chart in a file.
* ``run_checkpoints``: what is in the directories of runs.
* ``blocks`` and ``plain_text``: text that is safe to show.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.view.notebook import html
    from functrain.view.page import draw
    from functrain.view.run_report import report

__all__ = ["draw", "html", "report"]

_FILES = {"draw": "page", "html": "notebook", "report": "run_report"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module 'functrain.view' has no attribute {name!r}")
    return getattr(import_module(f"functrain.view.{_FILES[name]}"), name)
