"""Plain data as tables of a page, which styles them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from functrain.view.markup import Markup, element


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Return a few values under their names, side by side."""
    cells = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *cells, class_="facts")


def nested(data: object) -> Markup:
    """Return nested data as a table of dotted names and values."""
    rows = (
        element("tr", element("td", name, class_="name"), element("td", value, class_="value"))
        for name, value in flat(data)
    )
    return element("div", element("table", *rows), class_="scroll")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[str]) -> Markup:
    """Return a table with a row of headings.

    Args:
        heads: of the columns.
        rows: cells of each row.
        numbers: headings of the columns that are aligned to the right.
    """
    kinds = ["number" if head in numbers else None for head in heads]
    head = (element("th", name, class_=kind) for name, kind in zip(heads, kinds, strict=True))
    body = (
        element(
            "tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))
        )
        for row in rows
    )
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", whole, class_="scroll")


def flat(data: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Return the leaves of nested data with their dotted names; lists of leaves stay whole.

    Example:
        >>> list(flat({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "ema": None}))
        [('optimizer.lr', '0.1'), ('optimizer.betas', '[0.9, 0.99]'), ('ema', 'None')]
    """
    children: list[tuple[Any, Any]] = []
    if isinstance(data, Mapping):
        children = list(data.items())
    elif isinstance(data, list | tuple) and any(isinstance(c, Mapping | list) for c in data):
        children = list(enumerate(data))
    if not children:
        yield name, data if isinstance(data, str) else str(data)
    for key, child in children:
        yield from flat(child, f"{name}.{key}" if name else str(key))
