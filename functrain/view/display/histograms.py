"""A histogram the size of a word."""

from __future__ import annotations

from functrain.view.display.spreads import Spread
from functrain.view.plotting.markup import Markup, element

_WIDTH, _HEIGHT = 72, 15
# A bin with anything in it is seen.
_LEAST = 0.8


def histogram(spread: Spread, size: int) -> Markup:
    """Draw how values are spread, with a line at zero; the numbers show under the pointer.

    Args:
        spread: of a tensor; its counts are not empty.
        size: how many elements the tensor has.
    """
    assert spread.low is not None, "a histogram is of finite values"
    assert spread.high is not None, "a histogram is of finite values"
    across = _WIDTH / len(spread.counts)
    most = max(spread.counts)
    heights = [max(_LEAST, count / most * (_HEIGHT - 1)) if count else 0 for count in spread.counts]
    bars = "".join(f"V{_HEIGHT - height:.3g}h{across:.3g}" for height in heights)
    shapes = [
        element("path", d=f"M0 {_HEIGHT}{bars}V{_HEIGHT}z", fill="currentColor", opacity=0.55)
    ]
    if spread.low < 0 < spread.high:
        share = -(spread.low / 2) / (spread.high / 2 - spread.low / 2)  # halves: no overflow
        line = f"M{share * _WIDTH:.3g} 0V{_HEIGHT}"
        shapes.append(element("path", d=line, stroke="currentColor", stroke_width=0.7))
    return element(
        "svg",
        element("title", in_words(spread, size)),
        *shapes,
        width=_WIDTH,
        height=_HEIGHT,
        style="vertical-align:middle",
    )


def in_words(spread: Spread, size: int) -> str:
    """What a histogram shows, as text.

    Example:
        >>> import torch
        >>> from functrain.view.display.spreads import spreads
        >>> w = torch.arange(5.0)
        >>> in_words(spreads([w])[id(w)], 5)
        '0 to 4, mean 2, std 1.41'
    """
    few = "" if spread.looked_at == size else f" ({spread.looked_at:,} of {size:,} values)"
    return (
        f"{spread.low:.3g} to {spread.high:.3g}, mean {spread.mean:.3g}, std {spread.std:.3g}{few}"
    )
