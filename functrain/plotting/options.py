"""Which metrics of a run to draw, and over what."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from functrain.errors.validators import number, one_of
from functrain.plotting.colors import THEMES
from functrain.plotting.columns import LABELS


def _texts(patterns: Iterable[str]) -> tuple[str, ...]:
    return tuple(patterns)


@attrs.frozen
class Options:
    """How to draw curves.

    Args:
        metrics: globs of metric names; by default the metrics that people usually look at.
        x: ``step``, ``epoch``, ``samples`` or ``time``.
        smooth: training metrics are smoothed over this share of them, from 0 (not) to below 1.
        log: whether values are logarithmic; by default where that shows more.
        theme: ``light`` or ``dark``, the paper of a figure; pages take the reader's.

    Raises:
        ConfigurationError: ``x``, ``smooth`` or ``theme`` has another value.

    Example:
        >>> Options(metrics=("*loss",), x="epoch").smooth
        0.05
    """

    metrics: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    x: str = attrs.field(default="step", validator=one_of(*LABELS))
    smooth: float = attrs.field(default=0.05, validator=number(minimum=0, below=1))
    log: bool | None = None
    theme: str = attrs.field(default="light", validator=one_of(*THEMES))
