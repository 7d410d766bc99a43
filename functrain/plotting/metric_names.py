"""The name of a metric tells where the metric was measured, and which panel it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest

# Columns of a log that tell how far the run was.
POSITIONS = ("step", "epoch", "samples", "seconds", "time")
TITLES = {"lr": "learning rate", "grad_norm": "gradient norm"}
# Listeners of functrain log these for a step, under names with a slash.
_MONITORS = ("grad_norm", "memory", "update_ratio")


def is_mean(name: str) -> bool:
    """Return whether a metric is the mean of a training metric over an epoch."""
    return name.startswith("epoch/")


def is_evaluation(name: str, names: Collection[str]) -> bool:
    """Return whether a metric was measured on an evaluation set, rather than in a step.

    Example:
        >>> names = ["grad_norm", "grad_norm/head", "eval/loss", "epoch/loss"]
        >>> [is_evaluation(name, names) for name in names]
        [False, False, True, False]
    """
    first, slash, _ = name.partition("/")
    return bool(slash) and first not in ("epoch", *_MONITORS, *names)


def evaluation_set(name: str) -> str:
    """Return the evaluation set in a metric's name.

    Example:
        >>> evaluation_set("eval/ema/loss")
        'eval/ema'
    """
    return name.rpartition("/")[0]


def panel_of(name: str, names: Collection[str]) -> str:
    """Return the metric whose panel shows a metric.

    Example:
        >>> names = ["loss", "lr", "lr.0", "grad_norm", "grad_norm/head", "eval/ema/loss"]
        >>> [panel_of(name, names) for name in names]
        ['loss', 'lr', 'lr', 'grad_norm', 'grad_norm', 'loss']
    """
    if is_mean(name) or is_evaluation(name, names):
        return name.rpartition("/")[2]
    stem, slash, _ = name.partition("/" if "/" in name else ".")
    return stem if stem in names or (slash == "/" and stem in _MONITORS) else name


def choose_metrics(names: Sequence[str], patterns: Sequence[str] = ()) -> list[str]:
    """Return the metrics to draw.

    Patterns are names, or globs such as ``eval/*``; by default everything is drawn except positions
    in the run, epoch means and the parts of a learning rate.

    Example:
        >>> choose_metrics(["step", "loss", "lr", "lr.0", "epoch/loss", "eval/loss"])
        ['loss', 'lr', 'eval/loss']
    """
    metrics = [name for name in names if name not in POSITIONS]
    for pattern in patterns:
        if not match_names(metrics, pattern):
            raise ConfigurationError(
                f"no metric matches {pattern!r}{nearest(pattern, metrics)}; there are "
                f"{', '.join(metrics) or 'none'}"
            )
    if patterns:
        found = set().union(*(match_names(metrics, each) for each in patterns))
        return [name for name in metrics if name in found]
    return [name for name in metrics if not is_mean(name) and not name.startswith("lr.")]


def match_names(names: Collection[str], pattern: str) -> set[str]:
    """Return the names that a glob matches; a name that equals it counts alone.

    Example:
        >>> match_names(["iou[car]", "iouc"], "iou[car]")
        {'iou[car]'}
    """
    return {pattern} if pattern in names else {n for n in names if fnmatchcase(n, pattern)}


def order(panel: str) -> int:
    """Return a panel's sort key: loss first, then other metrics, then learning rate and norm."""
    return {"loss": 0, "lr": 2, "grad_norm": 3}.get(panel, 1)


def spans_magnitudes(panel: str) -> bool:
    """Return whether metrics of this name often change by orders of magnitude."""
    return any(word in panel for word in ("loss", "norm", "perplexity", "ratio"))
