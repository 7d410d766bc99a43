"""A histogram the size of a word."""

from __future__ import annotations

from functrain.view.markup import Markup, element
from functrain.view.value_summary import ValueSummary

_WIDTH, _HEIGHT = 72, 15
# A bin that is not empty is at least this high, so that it is visible.
_LEAST = 0.8


def histogram(values: ValueSummary, size: int) -> Markup:
    """Draw a histogram with a line at zero; the pointer shows the numbers.

    Args:
        values: of a tensor; its counts are not empty.
        size: number of elements of the tensor.
    """
    assert values.low is not None, "a histogram needs finite values"
    assert values.high is not None, "a histogram needs finite values"
    across = _WIDTH / len(values.counts)
    most = max(values.counts)
    heights = [max(_LEAST, count / most * (_HEIGHT - 1)) if count else 0 for count in values.counts]
    bars = "".join(f"V{_HEIGHT - height:.3g}h{across:.3g}" for height in heights)
    shapes = [
        element("path", d=f"M0 {_HEIGHT}{bars}V{_HEIGHT}z", fill="currentColor", opacity=0.55)
    ]
    if values.low < 0 < values.high:
        share = -(values.low / 2) / (values.high / 2 - values.low / 2)  # halves do not overflow
        line = f"M{share * _WIDTH:.3g} 0V{_HEIGHT}"
        shapes.append(element("path", d=line, stroke="currentColor", stroke_width=0.7))
    return element(
        "svg",
        element("title", in_words(values, size)),
        *shapes,
        width=_WIDTH,
        height=_HEIGHT,
        style="vertical-align:middle",
    )


def in_words(values: ValueSummary, size: int) -> str:
    """Return the numbers of a histogram as text.

    Example:
        >>> import torch
        >>> from functrain.view.value_summary import value_summaries
        >>> w = torch.arange(5.0)
        >>> in_words(value_summaries([w])[id(w)], 5)
        '0 to 4, mean 2, std 1.41'
    """
    few = "" if values.looked_at == size else f" ({values.looked_at:,} of {size:,} values)"
    return (
        f"{values.low:.3g} to {values.high:.3g}, mean {values.mean:.3g}, std {values.std:.3g}{few}"
    )
