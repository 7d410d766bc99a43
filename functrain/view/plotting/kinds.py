"""What a metric's name says: where it was measured, and beside which others it is drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest
from functrain.view.plotting.progress import PLACES

TITLES = {"lr": "learning rate", "grad_norm": "gradient norm"}
# What listeners of functrain log of a step under a name with a slash.
_MONITORS = ("grad_norm", "memory", "update_ratio")


def is_mean(name: str) -> bool:
    """Whether it is the mean of a training metric over an epoch."""
    return name.startswith("epoch/")


def is_evaluation(name: str, names: Collection[str]) -> bool:
    """Whether a metric is of an evaluation set, rather than of the step itself.

    Args:
        name: of the metric.
        names: of all metrics of the run.

    Example:
        >>> names = ["grad_norm", "grad_norm/head", "eval/loss", "epoch/loss"]
        >>> [is_evaluation(name, names) for name in names]
        [False, False, True, False]
    """
    first, slash, _ = name.partition("/")
    return bool(slash) and first not in ("epoch", *_MONITORS, *names)


def panel_of(name: str, names: Collection[str]) -> str:
    """The metric whose panel a metric is drawn in.

    Example:
        >>> names = ["loss", "lr", "lr.0", "grad_norm", "grad_norm/head", "eval/ema/loss"]
        >>> [panel_of(name, names) for name in names]
        ['loss', 'lr', 'lr', 'grad_norm', 'grad_norm', 'loss']
    """
    if is_mean(name) or is_evaluation(name, names):
        return name.rpartition("/")[2]
    stem, slash, _ = name.partition("/" if "/" in name else ".")
    return stem if stem in names or (slash == "/" and stem in _MONITORS) else name


def chosen(names: Sequence[str], patterns: Sequence[str] = ()) -> list[str]:
    """The metrics to draw.

    Args:
        names: of all metrics of all runs.
        patterns: globs such as ``eval/*``; by default all but places in the run, epoch means and
            the parts of a learning rate.

    Raises:
        ConfigurationError: a pattern matches none; names the nearest there is.

    Example:
        >>> chosen(["step", "loss", "lr", "lr.0", "epoch/loss", "eval/loss"])
        ['loss', 'lr', 'eval/loss']
    """
    metrics = [name for name in names if name not in PLACES]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in metrics):
            raise ConfigurationError(
                f"no metric matches {pattern!r}{nearest(pattern, metrics)}; there are "
                f"{', '.join(metrics) or 'none'}"
            )
    if patterns:
        return [name for name in metrics if any(fnmatchcase(name, each) for each in patterns)]
    return [name for name in metrics if not is_mean(name) and not name.startswith("lr.")]


def order(panel: str) -> int:
    """Where a panel stands among others: loss first, then what is measured, then the step's own."""
    return {"loss": 0, "lr": 2, "grad_norm": 3}.get(panel, 1)


def spans_magnitudes(panel: str) -> bool:
    """Whether a metric of this name is looked at by its magnitude, so that it may be drawn so."""
    return any(word in panel for word in ("loss", "norm", "perplexity", "ratio"))
