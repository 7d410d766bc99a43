"""The differences of two trees in a notebook: a table."""

from __future__ import annotations

from collections.abc import Sequence

from functrain.tree.compare import Difference, ulps_text
from functrain.tree.nodes import path_string
from functrain.view.blocks import block, code, quiet, table
from functrain.view.markup import Markup, element
from functrain.view.plain_text import apart, number

_MOST = 100
_HEADS = ("path", "elements", "the first at", "first", "second", "at most", "max abs")


def html(differences: Sequence[Difference]) -> Markup:
    """Return the table, in the order of the tree."""
    if not differences:
        return block(element("b", "no differences"), " ", quiet("the same bytes in every leaf"))
    count = len(differences)
    title = element("b", f"{count:,} difference{'' if count == 1 else 's'}")
    more = [quiet(f"... {count - _MOST:,} more")] if count > _MOST else []
    return block(title, table(map(_cells, differences[:_MOST]), _HEADS), *more)


def _cells(found: Difference) -> list[object]:
    path = code(path_string(found.path))
    if found.kind != "value" or found.index is None:
        return [path, found.kind, "", element("span", found.detail)]
    values = map(code, apart(found.first, found.second))
    where = code(list(found.index)) if found.index else ""
    return [path, f"{found.count:,}", where, *values, ulps_text(found.ulps), number(found.max_abs)]
