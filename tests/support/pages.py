"""Parse a fragment of HTML strictly, into the elements and text that a person sees."""

from __future__ import annotations

from html.parser import HTMLParser

from functrain.view import html

VOID = {"path", "use", "g", "br", "meta"}


def in_notebook(value: object) -> str:
    """Return the HTML that a notebook shows of a value."""
    shown = html(value)
    assert shown is not None
    return shown


class Page(HTMLParser):
    """Elements and text of a fragment or a page.

    Attributes:
        tags: opened, in order.
        attributes: of all elements, in order.
        rows: of tables, each a list of cells.
        texts: between tags.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, f"<{tag}/> is no empty element of HTML or SVG"
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows and self._open and {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        """All text without a break at tags."""
        return "".join(self.texts)

    def values(self, name: str) -> list[str | None]:
        """Return the values of an attribute."""
        return [value for each, value in self.attributes if each == name]

    def row(self, first: str) -> list[str]:
        """Return the row whose first cell has this text."""
        (found,) = [row for row in self.rows if row and row[0] == first]
        return found

    def is_self_contained(self) -> bool:
        """Return whether it needs no script, network or style sheet."""
        names = {name for name, value in self.attributes if not (value or "").startswith("#")}
        values = " ".join(value or "" for _, value in self.attributes)
        outside = {"src", "href", "class"} & names
        handlers = [name for name in names if name.startswith("on")]
        unsafe = {"script", "style", "link", "img", "iframe"} & set(self.tags)
        return not (outside or handlers or unsafe or "url(" in values or "http" in values)
