"""The valid ranges of sampling options, shared by the logits processors and the sampler."""

from __future__ import annotations

import math
from typing import Any

import attrs

from functrain.errors import ConfigurationError


@attrs.frozen
class Bounds:
    """The valid range of a number. It is also an attrs validator.

    Attributes:
        name: the name of the option.
        low: the smallest value.
        high: the largest value.
        above: whether ``low`` itself is excluded.
        whole: whether the number must be an integer.
    """

    name: str
    low: float
    high: float = math.inf
    above: bool = False
    whole: bool = False

    def __call__(self, instance: Any, attribute: Any, value: Any) -> None:
        """Check a field."""
        self.check(value)

    def check(self, value: Any) -> None:
        """Check that a value is within the range.

        Raises:
            ConfigurationError: the value is out of range.

        Example:
            >>> Bounds("top_p", 0, 1).check(1.5)
            Traceback (most recent call last):
            functrain.errors.ConfigurationError: top_p must be a number from 0 to 1, got 1.5
        """
        kinds = int if self.whole else int | float
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if number and self.low <= value <= self.high and not (self.above and value == self.low):
            return
        kind = "a whole number" if self.whole else "a number"
        least = f"above {self.low}" if self.above else f"of at least {self.low}"
        span = f"from {self.low} to {self.high}" if self.high < math.inf else least
        raise ConfigurationError(f"{self.name} must be {kind} {span}, got {value!r}")


TEMPERATURE = Bounds("temperature", 0)
TOP_K = Bounds("top_k", 0, whole=True)
TOP_P = Bounds("top_p", 0, 1)
MIN_P = Bounds("min_p", 0, 1)
REPETITION_PENALTY = Bounds("repetition_penalty", 0, above=True)
NO_REPEAT_NGRAM_SIZE = Bounds("no_repeat_ngram_size", 0, whole=True)
