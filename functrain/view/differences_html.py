"""The differences of two trees in a notebook: a table."""

from __future__ import annotations

from collections.abc import Sequence

from functrain.tree.compare import Difference
from functrain.tree.nodes import path_string
from functrain.view.blocks import block, code, quiet, table
from functrain.view.markup import Markup, element

_MOST = 100
_HEADS = ("path", "elements", "the first at", "first", "second", "most ulps", "most apart")


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
    ulps = "" if found.ulps is None else f"{found.ulps:,}"
    values = map(code, _apart(found.first, found.second))
    where = code(list(found.index)) if found.index else ""
    return [path, f"{found.count:,}", where, *values, ulps, f"{found.max_abs:.3g}"]


def _apart(first: object, second: object) -> tuple[str, str]:
    """Return two values in six digits, or in as many as tell them apart."""
    if isinstance(first, float) and isinstance(second, float):
        short = f"{first:.6g}", f"{second:.6g}"
        if short[0] != short[1]:
            return short
    return repr(first), repr(second)
