"""The arguments of a search: checked, and in the form that the loop takes."""

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
from functrain.training.durations import Duration, Minutes, duration
from functrain.training.early_stopping import Halving

Direction: TypeAlias = Literal["minimize", "maximize"]
_DIRECTIONS, _VALUES = ("minimize", "maximize"), ("last", "best")


def direction_of(metric: str, direction: Direction | None) -> Direction:
    """Return the user's choice of a direction, or the one that a well-known name implies.

    Example:
        >>> direction_of("eval/accuracy", None), direction_of("eval/score", "minimize")
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


def check(direction: str, value: str, trials: int, seeds: Sequence[int], failures: int) -> None:
    for name, given, known in (("direction", direction, _DIRECTIONS), ("value", value, _VALUES)):
        if given not in known:
            raise SearchError(
                f"{name}: expected {' or '.join(known)}, got {given!r}{nearest(given, known)}"
            )
    for name, number in (("trials", trials), ("max_failures", failures)):
        if not is_integer(number, 1):
            raise SearchError(f"{name}: expected a whole number of at least 1, got {number!r}")
    if not all(map(is_integer, seeds)) or not seeds or len(set(seeds)) < len(seeds):
        raise SearchError(f"seeds: expected different whole numbers, got {list(seeds)}")


def as_halving(given: Any, metric: str, direction: Direction) -> Halving | None:
    """Return the rule of successive halving, which ranks trials by the metric of the search."""
    if given is None:
        return None
    names = ("every", "keep", "least")
    if isinstance(given, Halving):
        given = {name: getattr(given, name) for name in names}
    for name in given:
        if name not in names:
            raise SearchError(f"halving.{name}: unknown key{nearest(name, names)}")
    try:
        return Halving(metric, **given, mode="min" if direction == "minimize" else "max")
    except ConfigurationError as error:
        raise SearchError(f"halving: {error}") from error


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


def check_population(objective: Any, population: Any, halving: Halving | None) -> None:
    """Refuse a population that the objective cannot train."""
    if not is_integer(population, 1):
        raise SearchError(f"population: expected a whole number of at least 1, got {population!r}")
    if population == 1 and halving is not None:
        raise SearchError("halving ranks the trials of a population: give population=8, say")
    if population > 1 and not hasattr(objective, "program"):
        raise SearchError(
            f"population={population} trains several trials by one step: expected an objective "
            f"such as functrain.search.ProgramObjective, got a {type(objective).__name__}, which "
            "trains one"
        )


def seconds(timeout: Duration | str | None) -> float:
    if timeout is None:
        return math.inf
    limit = duration(timeout)
    if not isinstance(limit, Minutes):
        raise SearchError(f"timeout: expected a time such as '30 minutes', got {timeout!r}")
    return float(limit.n) * 60
