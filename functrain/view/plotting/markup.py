"""HTML as values: whatever is not markup already is escaped when it is put into some."""

from __future__ import annotations

from html import escape

_EMPTY = frozenset({"meta", "line", "path", "circle", "rect", "br"})


class Markup(str):
    """Text that is HTML; only :func:`element` and :func:`joined` make it of other text."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """An element; children that are not :class:`Markup` and all attributes are escaped.

    Args:
        tag: its name.
        children: what is in it, in order.
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
    """Markup and escaped text, one after the other."""
    return Markup(
        "".join(child if isinstance(child, Markup) else _escaped(child) for child in children)
    )


def printable(text: str) -> str:
    r"""Text in which control characters and lone surrogates, as of file names, are spelled out.

    Example:
        >>> printable("a\x1b[2J\udc80")
        'a\\x1b[2J\\udc80'
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def _escaped(value: object) -> str:
    return escape(printable(str(value)))
