"""Failures of optimizers and their groups."""

from __future__ import annotations

from functrain.errors.base import FunctrainError


class UnsupportedParameterError(FunctrainError, ValueError):
    """An optimizer was given a parameter or a gradient of a kind that it is not defined for."""


class HyperparameterError(FunctrainError, ValueError):
    """An optimizer was given a hyperparameter outside its range."""


class UnmatchedParameterError(FunctrainError, ValueError):
    """A parameter belongs to no group of an optimizer."""


class UnusedPatternError(FunctrainError, ValueError):
    """A group's pattern matches no parameter."""


class UnsupportedOptimizerError(FunctrainError, TypeError):
    """A class cannot be made into a pure optimizer."""
