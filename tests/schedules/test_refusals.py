"""Schedules refuse invalid fields, and say what they expect."""

from __future__ import annotations

import math
from typing import Any

import pytest

from functrain.errors import ConfigurationError
from functrain.schedules import (
    CosineRestarts,
    Cyclic,
    ExpHyperbolic,
    Exponential,
    ExponentialWarmup,
    Hyperbolic,
    InverseSqrt,
    MultiStep,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Sequential,
    Spike,
    Step,
    Warmup,
    WarmupStableDecay,
)

HYPERBOLA = {"lr": 1.0, "upper_bound": 10, "infimum_lr": 0.1, "max_iter": 5}
# By class, valid arguments and the wrong values of fields.
WRONG: dict[type, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    Warmup: (
        {"factor": 0.1, "steps": 4, "then": 1.0},
        {"factor": [-0.1, 1.1, "a"], "steps": [-1, 1.5]},
    ),
    Spike: (
        {"schedule": 1.0},
        {"factor": [1.0], "threshold": [0.0], "threshold_mode": ["z"], "decay": [1.0]}
        | {"patience": [-1], "cooldown": [1.5], "burn_in": [0], "recovery": [0.9]}
        | {"floor": [1.1], "eps": [-1.0]},
    ),
    Plateau: (
        {"lr": 1.0},
        {"lr": [-0.1], "factor": [1.0, 1.5, -0.1], "patience": [-1, 1.5], "cooldown": [-1]}
        | {"threshold": [-1.0, math.nan], "threshold_mode": ["relative"], "mode": ["auto"]}
        | {"min_lr": [-1.0], "eps": [-1.0]},
    ),
}
PLAIN = {"lr": 1.0, "warmup_steps": 5, "decay_steps": 5, "steps": 20}


@pytest.mark.parametrize(
    ("cls", "arguments", "said"),
    [
        (Polynomial, {"lr": 1.0, "power": 0.0}, "power: expected a finite number above 0"),
        (Polynomial, {"lr": 10**400}, "lr: expected a finite number >= 0, got inf"),
        (Polynomial, {"lr": 1.0, "steps": 0}, "steps: expected an integer >= 1"),
        (Exponential, {"lr": 1.0, "factor": -0.1}, "factor: expected"),
        (Exponential, {"lr": 1.0, "factor": 0.9, "end": 2.0}, "end: expected at most lr"),
        (Exponential, {"lr": 1.0, "factor": 1.1, "end": 0.5}, "end: expected at least lr"),
        (Step, {"lr": 1.0, "every": 0}, "every: expected an integer >= 1"),
        (Step, {"lr": 1.0, "every": 5, "factor": -0.5}, "factor: expected a finite number >= 0"),
        (MultiStep, {"lr": 1.0, "milestones": [5, 3]}, "milestones: expected .* rising"),
        (MultiStep, {"lr": 1.0, "milestones": [-1, 3]}, "milestones: expected"),
        (MultiStep, {"lr": 1.0, "milestones": 3}, "milestones: expected"),
        (OneCycle, {"lr": 1.0, "shape": "cos"}, "shape: expected 'cosine' or 'linear'"),
        (OneCycle, {"lr": 1.0, "div_factor": 0.0}, "div_factor: expected a finite number above 0"),
        (OneCycle, {"lr": 1.0, "final_div_factor": 0.0}, "final_div_factor: expected"),
        (OneCycle, {"lr": 1.0, "warmup_proportion": 1.1}, "warmup_proportion: expected"),
        (
            OneCycle,
            {"lr": 1.0, "warmup_proportion": 0.6, "three_phase": True},
            "warmup_proportion: expected a number up to 0.5",
        ),
        (Cyclic, {"lr": 1.0, "top": 0.5}, "top: expected a number of at least lr"),
        (Cyclic, {"lr": 1.0, "top": 2.0, "up": 0}, "up: expected"),
        (Cyclic, {"lr": 1.0, "top": 2.0, "mode": "square"}, "mode: expected"),
        (CosineRestarts, {"lr": 1.0, "period": 0}, "period: expected"),
        (CosineRestarts, {"lr": 1.0, "period": 1, "growth": 1.5}, "growth: expected"),
        (InverseSqrt, {"lr": 1.0, "warmup_steps": -1}, "warmup_steps: expected"),
        (InverseSqrt, {"lr": 1.0, "warmup_steps": 1, "timescale": 0}, "timescale: expected"),
        (WarmupStableDecay, PLAIN | {"decay_steps": 16}, "do not fit into a horizon of 20"),
        (WarmupStableDecay, PLAIN | {"warmup_steps": None}, "exactly one of warmup_steps and"),
        (WarmupStableDecay, PLAIN | {"decay_proportion": 0.1}, "exactly one of decay_steps and"),
        (WarmupStableDecay, PLAIN | {"shape": "1-sqrt"}, "shape: expected"),
        (Piecewise, {"points": {}}, "must rise from 0"),
        (Piecewise, {"points": {1: 0.1}}, "must rise from 0"),
        (Piecewise, {"points": [(0, 0.1), (0, 0.2)]}, "must rise from 0"),
        (Piecewise, {"points": {0: -0.1}}, "points: expected"),
        (Piecewise, {"points": {0.5: 0.1}}, "points: expected"),
        (Piecewise, {"points": 3}, "points: expected"),
        (Piecewise, {"points": [1, 2]}, "points: expected"),
        (ExponentialWarmup, {"period": 0, "then": 1.0}, "period: expected a finite number above 0"),
        (Hyperbolic, HYPERBOLA | {"upper_bound": 4}, "upper_bound=4: expected at least"),
        (Hyperbolic, HYPERBOLA | {"infimum_lr": 1.0}, "infimum_lr: expected a number below lr"),
        (Hyperbolic, HYPERBOLA | {"infimum_lr": -0.1}, "infimum_lr: expected"),
        (Hyperbolic, HYPERBOLA | {"max_iter": 0}, "max_iter: expected"),
        (ExpHyperbolic, HYPERBOLA | {"upper_bound": 4}, "upper_bound=4: expected at least"),
        (ExpHyperbolic, HYPERBOLA | {"infimum_lr": 2.0}, "infimum_lr: expected a number below lr"),
        (
            ExpHyperbolic,
            HYPERBOLA | {"infimum_lr": 0.0},
            "infimum_lr: expected a finite number above 0",
        ),
        (Sequential, {"schedules": [], "boundaries": []}, "schedules must hold at least one"),
        (Sequential, {"schedules": [1, 2], "boundaries": []}, "got 0 boundaries for 2"),
        (Sequential, {"schedules": [1, 2], "boundaries": [0]}, "rise from above 0"),
        (Sequential, {"schedules": [1, 2, 3], "boundaries": [5, 5]}, "rise from above 0"),
        (Sequential, {"schedules": [1, 2, 3], "boundaries": [5, 4]}, "rise from above 0"),
        (Sequential, {"schedules": [1, 2], "boundaries": [1.5]}, "boundaries: expected integers"),
    ],
)
def test_errors_name_the_field(cls: Any, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__}: .*{said}"):
        cls(**arguments)


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (cls, field, value)
        for cls, (_, fields) in WRONG.items()
        for field, values in fields.items()
        for value in values
    ],
)
def test_a_wrong_value_names_the_field(cls: Any, field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{cls.__name__}: {field}: expected"):
        cls(**{**WRONG[cls][0], field: value})
