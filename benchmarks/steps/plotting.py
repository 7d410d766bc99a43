"""The ratios of all works as one picture: one panel per work, one bar per contender."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.steps.contenders import CONTENDERS
from benchmarks.steps.measuring import Results
from benchmarks.steps.reporting import title

_COLOURS = {"plain": "#7f7f7f", "functrain": "#1f6fb4", "peer": "#d9a441"}
_KINDS = {"plain": "plain PyTorch", "functrain": "functrain", "peer": "others"}
_LIMIT = 2.5  # longer bars are cut off and labelled with the full number
_COLUMNS = 2


def draw(everything: Sequence[Results], path: Path) -> None:
    """Write the picture.

    Args:
        everything: works in their order.
        path: a file whose name ends in that of a picture format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    count = math.ceil(len(everything) / _COLUMNS)
    most = max(len(results.figures) for results in everything)
    height = count * (0.26 * most + 0.9) + 0.9
    figure, panels = pyplot.subplots(
        count, _COLUMNS, figsize=(13, height), squeeze=False, layout="constrained"
    )
    for panel, results in zip(panels.flat, everything, strict=False):
        _panel(panel, results)
    for panel in panels.flat[len(everything) :]:
        panel.set_visible(False)
    patches = [Patch(color=_COLOURS[kind], label=label) for kind, label in _KINDS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    figure.suptitle("Time of a train step as a ratio to the plain PyTorch loop (less is better)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Any, results: Results) -> None:
    """Draw bars in the order of the contenders, from the top."""
    names = [name for name in CONTENDERS if name in results.figures]
    ratios = [results.ratio(name) for name in names]
    places = range(len(names))
    colours = [_COLOURS[CONTENDERS[name].kind] for name in names]
    panel.barh(places, [min(ratio, _LIMIT) for ratio in ratios], color=colours, height=0.72)
    for place, ratio in zip(places, ratios, strict=True):
        label = f"{ratio:.2f}" if ratio <= _LIMIT else f"{ratio:.2f} \u2192"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        at = min(ratio, _LIMIT) + 0.02
        panel.text(at, place, label, va="center", fontsize=8.5, bbox=box, zorder=4)
    panel.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=3)
    panel.set_yticks(places, [CONTENDERS[name].title for name in names], fontsize=9)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, _LIMIT + 0.3)
    low = min(results.figures["plain"].seconds) * 1e6
    panel.set_title(f"{title(results)} (plain: {low:,.0f} us)", fontsize=10.5, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
