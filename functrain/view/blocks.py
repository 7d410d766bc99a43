"""The building blocks of HTML in notebooks: a block, a folding block, a table.

They need no script, no network and no theme. Text takes the colour of the page (``currentColor``),
so that it is readable in light and dark themes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from functrain.view.plain_text import printable

_TEXT = "font:13px/1.45 system-ui,sans-serif;color:inherit;max-width:76em"
_CODE = "background:none;color:inherit;padding:0;overflow-wrap:anywhere"
# Notebooks centre tables, align their cells to the right and stripe their rows. A style sheet would
# be shorter, but some notebook viewers strip it.
_TABLE = "border-collapse:collapse;margin:.2em 0;table-layout:auto;font-size:inherit;border:0"
_ROW = "background:none"
_CELL = "text-align:left;padding:.1em 1.1em .1em 0;border:0"


def block(*children: object) -> Markup:
    """Return content in one block, in the font and colour of the page."""
    return element("div", *children, style=_TEXT)


def code(text: object) -> Markup:
    """Return text in a monospaced font; long lines are wrapped."""
    return element("code", text, style=_CODE)


def quiet(*children: object) -> Markup:
    """Return content that stands back a little."""
    return element("span", *children, style="opacity:.7")


def folding(summary: Iterable[object], *children: object, unfolded: bool = False) -> Markup:
    """Return a block that folds and unfolds on a click, without a script.

    Example:
        >>> print(folding(["a"], "b"))
        <details style="margin:.1em 0"><summary style="cursor:pointer">a</summary><div
        style="margin-left:1.3em">b</div></details>
    """
    return element(
        "details",
        element("summary", *summary, style="cursor:pointer"),
        element("div", *children, style="margin-left:1.3em"),
        style="margin:.1em 0",
        open="" if unfolded else None,
    )


def table(
    rows: Iterable[Sequence[object]],
    heads: Sequence[str] = (),
    classes: Sequence[str | None] = (),
) -> Markup:
    """Return a table, aligned to the left.

    With ``classes`` of its columns, the style sheet of a page styles it; in a notebook, which has
    no such sheet, the table brings its style along.
    """
    lines = [("th", heads)] if heads else []
    cells = (_row(tag, row, classes) for tag, row in (*lines, *(("td", row) for row in rows)))
    if classes:
        return element("div", element("table", *cells), class_="scroll")
    return element("table", *cells, style=_TABLE)


def _row(tag: str, cells: Sequence[object], classes: Sequence[str | None]) -> Markup:
    if classes:
        pairs = zip(cells, classes, strict=True)
        return element("tr", *(element(tag, cell, class_=kind) for cell, kind in pairs))
    style = f"{_CELL};font-weight:600" if tag == "th" else _CELL
    return element("tr", *(element(tag, cell, style=style) for cell in cells), style=_ROW)


_EMPTY = frozenset({"meta", "path"})


class Markup(str):
    """Text that is HTML; only :func:`element` and :func:`joined` make it from other text."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; all attributes, and children other than :class:`Markup`, are escaped.

    In their names ``_`` stands for ``-``, and a trailing one is dropped; ``None`` leaves one out.

    Example:
        >>> print(element("b", "<script>", element("i", 1), class_="a", data_run='"'))
        <b class="a" data-run="&quot;">&lt;script&gt;<i>1</i></b>
    """
    words = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _EMPTY:
        return Markup(f"<{tag}{words}/>")
    return Markup(f"<{tag}{words}>{joined(*children)}</{tag}>")


def joined(*children: object) -> Markup:
    """Return markup and escaped text, one after the other."""
    return Markup(
        "".join(child if isinstance(child, Markup) else _escaped(child) for child in children)
    )


def _escaped(value: object) -> str:
    return escape(printable(value, keep="\n"))
