"""Failures of the tools around a run: configurations, searches, finders and generation."""

from __future__ import annotations

import math

from functrain.errors.base import FunctrainError


class ConfigError(FunctrainError, ValueError):
    """A configuration is wrong; the message is one line that names the key.

    Attributes:
        where: the key, where one is at fault; the message begins with it.
    """

    def __init__(self, message: str, where: str | None = None) -> None:
        self.where = where
        super().__init__(f"{where}: {message}" if where else message)


class SearchError(FunctrainError, ValueError):
    """A search cannot begin or continue with its space or options; the message names the option."""


class FinderError(FunctrainError, ValueError):
    """A search for a hyperparameter found none."""


class LogitsError(FunctrainError, ValueError):
    """No token can be drawn: logits are NaN or ``+inf``, or ``-inf`` everywhere.

    Attributes:
        row: the row of the batch.
        largest: the largest logit of the row.
    """

    def __init__(self, row: int, largest: float) -> None:
        self.row = row
        self.largest = largest
        reason = {
            math.inf: "reach +inf. A temperature close to 0 does that (0 takes the most likely)",
            -math.inf: "are -inf everywhere: the rules of sampling leave no token. Loosen them",
        }
        found = reason.get(largest, "are NaN. See whether the weights are finite: functrain show")
        super().__init__(f"row {row}: no token can be drawn, for its logits {found}")
