"""A history in a notebook: the table that its repr shows, with every column."""

from __future__ import annotations

from functrain.plotting.table import HistoryTable
from functrain.training.history import History
from functrain.view.markup import Markup, element, joined

_NUMBER = "text-align:right"


def html(history: History) -> Markup:
    """Return the table."""
    if not len(history):
        return element("b", "History: no steps")
    table = HistoryTable.of(history.rows)
    columns = [name for _, group in table.groups for name in group]
    kinds = (element("th", kind, colspan=len(group)) for kind, group in table.groups)
    heads = (element("th", name, style=_NUMBER) for name in columns)
    body = (
        element("tr", *(element("td", row.get(name, ""), style=_NUMBER) for name in columns))
        for row in table.cells
    )
    drawn = element(
        "table",
        element("thead", element("tr", *kinds), element("tr", *heads)),
        element("tbody", *body),
    )
    rest = [f"and {', '.join(table.left_out)}"] if table.left_out else []
    return joined(element("b", table.title), drawn, *rest)
