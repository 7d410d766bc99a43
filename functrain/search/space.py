"""A search space: for each parameter a range of numbers or a list of choices.

In YAML a parameter is a mapping with ``type`` (or a list: choices), under its dotted name or
nested by section::

    optimizer.lr: {type: float, min: 1e-4, max: 1e-1, log: true}
    model:
      width: {type: int, min: 8, max: 64, step: 8}
      activation: [relu, gelu]
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import attrs

from functrain.errors import SearchError
from functrain.errors.nearest import nearest

# The keys by type, and whether each is required.
_NUMBER = {"min": True, "max": True, "log": False, "step": False}
_KEYS = {"float": _NUMBER, "int": _NUMBER, "categorical": {"choices": True}}


@attrs.frozen
class Range:
    """Numbers from ``min`` to ``max``, both included.

    Attributes:
        type: ``"float"`` or ``"int"``.
        min: the smallest value.
        max: the largest value; with ``step``, the largest that steps from ``min`` reach.
        log: draw uniformly in the logarithm.
        step: the distance between values.

    Example:
        >>> Range("int", 8, 30, step=8)
        Range(type='int', min=8, max=24, log=False, step=8)
    """

    type: Literal["float", "int"]
    min: float
    max: float
    log: bool = False
    step: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.type not in ("float", "int"):
            raise SearchError(f"type: expected float or int, got {self.type!r}")
        for name in ("min", "max", *(() if self.step is None else ("step",))):
            object.__setattr__(self, name, self._number(name, getattr(self, name)))
        if not self.min <= self.max:
            raise SearchError(f"min is {self.min}, which is above max, {self.max}")
        if not isinstance(self.log, bool):
            raise SearchError(f"log: expected true or false, got {self.log!r}")
        if self.log and (self.min <= 0 or self.step is not None):
            raise SearchError("log: needs min above 0, and no step")
        if self.step is not None:
            object.__setattr__(self, "max", self._reached(self.step))

    def _number(self, name: str, value: object) -> float:
        kinds = int if self.type == "int" else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            raise SearchError(f"{name}: expected {self.type}, got {value!r}")
        return value if self.type == "int" else float(value)

    def _reached(self, step: float) -> float:
        if step <= 0:
            raise SearchError(f"step: expected a number above 0, got {step}")
        # Exact decimal fractions, in which 0.3 is three steps of 0.1.
        low, high, width = (Fraction(repr(value)) for value in (self.min, self.max, step))
        reached = low + (high - low) // width * width
        return int(reached) if self.type == "int" else float(reached)

    @property
    def example(self) -> float:
        """A value from the range."""
        return self.min

    def read(self, stored: float) -> float:
        """Return the value that Optuna has stored."""
        return stored

    def suggest(self, trial: Any, name: str) -> float:
        """Draw a value; ``trial`` is an ``optuna.Trial``."""
        if self.type == "int":
            step = 1 if self.step is None else self.step
            return int(trial.suggest_int(name, self.min, self.max, step=step, log=self.log))
        return float(trial.suggest_float(name, self.min, self.max, step=self.step, log=self.log))


@attrs.frozen
class Choices:
    """One of several values, which may also be lists and mappings.

    Example:
        >>> Choices([32, [1, 2]]).labels
        (32, '[1, 2]')
    """

    options: tuple[Any, ...] = attrs.field(converter=tuple)

    def __attrs_post_init__(self) -> None:
        labels = [repr(label) for label in self.labels]
        if not labels:
            raise SearchError("choices: the list is empty")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice or len(set(self.labels)) < len(labels):
            raise SearchError(f"choices: some are equal: {', '.join(twice or labels)}")

    @property
    def labels(self) -> tuple[Any, ...]:
        """The options in the form that Optuna can store: lists and mappings as JSON."""
        plain = (type(None), bool, int, float, str)
        return tuple(o if isinstance(o, plain) else json.dumps(o) for o in self.options)

    @property
    def example(self) -> Any:
        """One of the options."""
        return self.options[0]

    def read(self, stored: Any) -> Any:
        """Return the option for a stored label."""
        return self.options[self.labels.index(stored)]

    def suggest(self, trial: Any, name: str) -> Any:
        """Draw a value; ``trial`` is an ``optuna.Trial``."""
        return self.read(trial.suggest_categorical(name, self.labels))


Parameter: TypeAlias = Range | Choices
Space: TypeAlias = dict[str, Parameter]


def read_space(given: Mapping[str, Any]) -> Space:
    """Read a space from plain data.

    Args:
        given: parameters by dotted name, or nested by section; each a mapping, a list, a
            ``Range`` or ``Choices``.

    Returns:
        Parameters by dotted name.

    Raises:
        SearchError: a parameter is invalid; the message begins with its name.

    Example:
        >>> read_space({"optimizer": {"lr": {"type": "float", "min": 0.1, "max": 1}}, "a.b": [1]})
        {'optimizer.lr': Range(type='float', min=0.1, max=1.0, log=False, step=None),
         'a.b': Choices(options=(1,))}
    """
    space: Space = {}
    for name, node in parameters(given):
        if name in space:
            raise SearchError(f"space: {name}: given twice")
        try:
            space[name] = read_parameter(node)
        except SearchError as error:
            raise SearchError(f"space: {name}: {error}") from error
    if not space:
        raise SearchError("space: it has no parameters")
    return space


def suggest(space: Space, trial: Any) -> dict[str, Any]:
    """Draw a value for each parameter; ``trial`` is an ``optuna.Trial``."""
    return {name: parameter.suggest(trial, name) for name, parameter in space.items()}


def parameters(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the plain data of each parameter below a section."""
    for key, child in node.items():
        if isinstance(child, Mapping) and not _is_parameter(child):
            yield from parameters(child, f"{path}{key}.")
        else:
            yield f"{path}{key}", child


def _is_parameter(node: Mapping[str, Any]) -> bool:
    """Return whether a mapping is a parameter, and not a section with a parameter "type"."""
    words = ("type", "min", "max", "choices")
    given = [node[word] for word in words if word in node]
    # In a section, a parameter with the name "min" is a mapping or a list.
    return any(not isinstance(value, Mapping | list) for value in given) or (
        node.keys() == {"choices"} and isinstance(node["choices"], list)
    )


def read_parameter(node: Any) -> Parameter:
    """Read one parameter: a mapping, a list, or the parameter itself."""
    if isinstance(node, Range | Choices):
        return node
    if isinstance(node, list | tuple):
        return Choices(node)
    if not isinstance(node, Mapping):
        raise SearchError(f"expected a mapping such as {{type: float, ...}}, got {node!r}")
    options = dict(node)
    kind = options.pop("type", "categorical" if "choices" in options else None)
    if kind not in _KEYS:
        raise SearchError(f"type: expected one of {', '.join(_KEYS)}, got {kind!r}")
    for key in options:
        if key not in _KEYS[kind]:
            raise SearchError(f"unknown key {key!r}{nearest(str(key), _KEYS[kind])}")
    for key, needed in _KEYS[kind].items():
        if needed and key not in options:
            raise SearchError(f"{key}: missing")
    if kind != "categorical":
        return Range(kind, **options)
    if not isinstance(options["choices"], list | tuple):
        raise SearchError(f"choices: expected a list, got {options['choices']!r}")
    return Choices(options["choices"])
