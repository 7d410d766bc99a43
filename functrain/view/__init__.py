"""Pages and HTML for people: a run as a report, values in a notebook.

Begin with ``notebook.py`` and ``run_report.py``.

* ``notebook``: which module shows which class, and IPython's formatters;
  ``state_html``, ``program_html``, ``schedule_html``, ``run_html``, ``history_html`` and
  ``differences_html`` make the HTML, from ``blocks``, ``charts``, ``histogram`` and
  ``value_summary``.
* ``run_report``: one run as one page; ``report_facts`` reads the run directory, ``report_status``
  judges whether the run has ended, ``report_notices`` collects problems.
* ``chart_file``: a chart in a file, as a picture or as a ``page``; ``page_tables`` are its tables.
* ``run_checkpoints`` and ``run_logs``: what is in the directories of runs.
* ``markup`` and ``plain_text``: text that is safe to show.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.view.chart_file import draw
    from functrain.view.notebook import html
    from functrain.view.run_report import report

__all__ = ["draw", "html", "report"]

_FILES = {"draw": "chart_file", "html": "notebook", "report": "run_report"}


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module 'functrain.view' has no attribute {name!r}")
    return getattr(import_module(f"functrain.view.{_FILES[name]}"), name)
