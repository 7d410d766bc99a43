"""Validators of fields and arguments: "Class: field: expected X, got Y"."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, get_args

import attrs
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest


@attrs.frozen
class Validator:
    """A condition on a value: a validator of attrs, and with :meth:`check` one of arguments.

    Attributes:
        accepts: whether a value meets it.
        expected: in words, the values that do.
        hint: from a wrong value to the end of the message.
    """

    accepts: Callable[[Any], bool]
    expected: str
    hint: Callable[[Any], str] = lambda _: ""

    def __call__(self, instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
        """Check a field, and make a NumPy scalar a number of Python: recipes and JSON hold it."""
        name = attribute.alias or attribute.name
        self.check(f"{type(instance).__name__}: {name}", value)
        if (own := plain(value)) is not value:
            object.__setattr__(instance, attribute.name, own)

    def check(self, name: str, value: Any) -> None:
        """Check an argument.

        Example:
            >>> number(minimum=0, maximum=1).check("top_p", 1.5)
            Traceback (most recent call last):
            functrain.errors.ConfigurationError: top_p: expected a number from 0 to 1, got 1.5
        """
        if not self.accepts(value):
            raise refused(name, self.expected, value, self.hint(value))


def refused(name: str, expected: str, value: Any, hint: str = "") -> ConfigurationError:
    """Return the error for a value that is not as expected."""
    got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return ConfigurationError(f"{name}: expected {expected}, got {got}{hint}")


def is_integer(value: Any, minimum: float = -math.inf) -> bool:
    """Return whether a value is an integer of Python or NumPy, no bool, and at least `minimum`."""
    return type(value) is not bool and isinstance(value, Integral) and int(value) >= minimum


def integer(*, minimum: int) -> Validator:
    """Accept an integer of Python or NumPy from the minimum on.

    Example:
        >>> @attrs.frozen
        ... class Last:
        ...     count: int = attrs.field(validator=integer(minimum=1))
        >>> Last(0)
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: Last: count: expected an integer >= 1, got 0
    """
    return Validator(lambda value: is_integer(value, minimum), f"an integer >= {minimum}")


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a number of Python, and anything else as it is."""
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    return value.item() if is_scalar else value


def number(
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    finite: bool = True,
    tensors: bool = False,
) -> Validator:
    """Accept a number from `minimum` to `maximum`, more than `above` and less than `below`.

    With ``tensors``, accept any 0-dim tensor. It may be traced, vmapped or on another device, so
    its value is not read.
    """

    def accepts(value: Any) -> bool:
        if tensors and isinstance(value, Tensor):
            return not value.ndim
        if type(value) is bool or not isinstance(value, Real):
            return False
        try:
            x = float(value)
        except OverflowError:  # such as 10**400
            return False
        inside = minimum <= x <= maximum
        inside = inside and (above == -math.inf or x > above) and (below == math.inf or x < below)
        return inside and (math.isfinite(x) or not finite)

    kind = "a number" if not finite or maximum < math.inf or below < math.inf else "a finite number"
    kind += _bounds(minimum, maximum, above, below)
    return Validator(accepts, f"{kind} or a 0-dim tensor" if tensors else kind)


def _bounds(minimum: float, maximum: float, above: float, below: float) -> str:
    if minimum > -math.inf and maximum < math.inf:
        return f" from {minimum:g} to {maximum:g}"
    if minimum > -math.inf and below < math.inf:
        return f" in [{minimum:g}, {below:g})"
    bounds = {">=": minimum, "above": above, "<=": maximum, "below": below}
    shown = [f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound)]
    return f" {' and '.join(shown)}" if shown else ""


def one_of(*choices: Any) -> Validator:
    """Accept some values, given one by one or as a ``Literal``.

    Example:
        >>> one_of("constant", "linear").check("shape", "liner")
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: shape: expected 'constant' or 'linear', got 'liner' ...
    """
    values = [value for choice in choices for value in get_args(choice) or (choice,)]
    *first, last = map(repr, values)
    words = [value for value in values if isinstance(value, str)]

    def hint(value: Any) -> str:
        return nearest(value, words) if isinstance(value, str) else ""

    expected = f"{', '.join(first)} or {last}" if first else last
    return Validator(lambda value: value in values, expected, hint)


def optional(validator: Validator) -> Validator:
    """Accept None, too."""
    expected = f"{validator.expected.replace(' or ', ', ')} or None"
    return Validator(
        lambda value: value is None or validator.accepts(value), expected, validator.hint
    )


BOOLEAN = Validator(lambda value: isinstance(value, bool), "True or False")
