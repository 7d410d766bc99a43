"""HTML as values: other text is escaped when it is put into markup."""

from __future__ import annotations

from html import escape

from functrain.view.plain_text import printable

_EMPTY = frozenset({"meta", "path"})


class Markup(str):
    """Text that is HTML; only :func:`element` and :func:`joined` make it from other text."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return an element; all attributes, and children other than :class:`Markup`, are escaped.

    Args:
        tag: its name.
        children: its content, in order.
        attributes: by name, ``_`` for ``-``, a trailing one dropped; ``None`` leaves one out.

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
