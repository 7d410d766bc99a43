"""Colours that remain distinct for colour-blind readers, on light and on dark paper.

The hues of Okabe and Ito, "Color Universal Design" (2008), darkened for light paper and lightened
for dark paper until each has a contrast of 3:1 or more, as WCAG 2.1 asks of graphics.
"""

from __future__ import annotations

from typing import Any

import attrs


@attrs.frozen
class Theme:
    """The colours of a picture, as matplotlib takes them.

    Attributes:
        quiet: text and lines that stand back a little.
        lines: one for each run, or for each metric of a single run.
    """

    paper: str
    ink: str
    quiet: Any
    rule: Any
    lines: tuple[str, ...]


_DARKER = ("#0072b2", "#d55e00", "#00875f", "#b8578f", "#a86f00", "#2b8cc4", "#555555")
_LIGHTER = ("#5ab4f0", "#ff8c42", "#2fcf9f", "#e59ac4", "#f0b429", "#9ad5f5", "#bbbbbb")
# HTML cannot find out which theme a notebook uses: these are visible on white and on near-black.
BETWEEN = ("#3b88cf", "#d96a1a", "#14966f", "#c25f98", "#a37a10", "#7d7d7d")
# In HTML, everything of this colour takes the colour of the text around the picture.
INK = "#010203"

THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#5c6570", "#e3e6ea", _DARKER),
    "dark": Theme("#14171b", "#e8eaed", "#a0a8b3", "#343a43", _LIGHTER),
}
PAGE = Theme("none", INK, (INK, 0.75), (INK, 0.15), BETWEEN)
# Training, evaluation, further evaluation sets.
LINE_STYLES: tuple[Any, ...] = ("solid", (0, (5, 2.5)), (0, (1.5, 2)), (0, (7, 2, 1.5, 2)))
