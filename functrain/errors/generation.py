"""Failures of generation."""

from __future__ import annotations

import math

from functrain.errors.base import FunctrainError


class PromptError(FunctrainError, ValueError):
    """A text to go on with is empty, or is not made of what the model knows."""


class LogitsError(FunctrainError, ValueError):
    """No token can be drawn: logits are NaN or ``+inf``, or ``-inf`` everywhere."""

    def __init__(self, row: int, largest: float) -> None:
        self.row = row
        self.largest = largest
        reason = {
            math.inf: "reach +inf. A temperature close to 0 does that (0 takes the most likely)",
            -math.inf: "are -inf everywhere: the rules of sampling leave no token. Loosen them",
        }
        found = reason.get(largest, "are NaN. See whether the weights are finite: functrain show")
        super().__init__(f"row {row}: no token can be drawn, for its logits {found}")
