"""Check the arguments of a search."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from functrain.errors import ConfigurationError, SearchError
from functrain.errors.nearest import nearest
from functrain.errors.validators import is_integer
from functrain.metrics.mode import mode_of_name, name_hint
from functrain.training.agreement import started
from functrain.training.durations import Duration, Minutes, duration

Direction: TypeAlias = Literal["minimize", "maximize"]


def find_direction(metric: str, direction: Direction | None) -> Direction:
    """Return the user's choice of a direction, or the one that a well-known name implies.

    Example:
        >>> find_direction("eval/accuracy", None), find_direction("eval/score", "minimize")
        ('maximize', 'minimize')
    """
    if direction is not None:
        return direction
    mode = mode_of_name(metric)
    if mode is None:
        raise SearchError(
            f"direction: {metric!r} is no well-known name{name_hint(metric)}, so nothing says "
            "whether less or more of it is better. Give minimize or maximize"
        )
    return "minimize" if mode == "min" else "maximize"


def require_one_process() -> None:
    """Refuse a search in each of several processes that train together."""
    if started() > 1:
        raise ConfigurationError(
            f"search: {started()} processes were started to train together, and each would draw "
            "trials of its own. Start one process, or several on their own without torchrun, srun "
            "and their variables (WORLD_SIZE, SLURM_NTASKS): these share the trials of a directory"
        )


def check_word(name: str, given: str, known: tuple[str, ...]) -> None:
    """Refuse a word other than the known ones."""
    if given not in known:
        raise SearchError(
            f"{name}: expected {' or '.join(known)}, got {given!r}{nearest(given, known)}"
        )


def check_counts(**numbers: int) -> None:
    """Refuse anything but whole numbers of at least 1."""
    for name, given in numbers.items():
        if not is_integer(given, 1):
            raise SearchError(f"{name}: expected a whole number of at least 1, got {given!r}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that are equal, no whole numbers, or none at all."""
    if not seeds or not all(map(is_integer, seeds)) or len(set(seeds)) < len(seeds):
        raise SearchError(f"seeds: expected different whole numbers, got {list(seeds)}")


def check_objective(objective: Any) -> None:
    """Refuse what cannot be called with parameters, seed, directory and listeners."""
    takes = "a function (params, seed, directory, listeners) that returns the run of functrain.fit"
    if not callable(objective):
        raise SearchError(f"objective: expected {takes}, got a {type(objective).__name__}")
    try:
        signature = inspect.signature(objective)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    try:
        signature.bind({}, 0, Path(), [])
    except TypeError as error:
        own = getattr(objective, "__name__", type(objective).__name__)
        raise SearchError(
            f"objective: expected {takes}, got {own}{signature}, which does not take them: {error}"
        ) from None


def seconds(timeout: Duration | str | None) -> float:
    """Return the limit of a search in seconds."""
    if timeout is None:
        return math.inf
    limit = duration(timeout)
    if not isinstance(limit, Minutes):
        raise SearchError(f"timeout: expected a time such as '30 minutes', got {timeout!r}")
    return float(limit.n) * 60
