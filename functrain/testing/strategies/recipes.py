"""Draw recipes: optimizer, schedule, EMA, clipping, accumulation, precision, non-finite policy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from functrain import optim
from functrain.core.ema import EMA
from functrain.core.swa import SWA
from functrain.testing.strategies.schedules import schedules

PRECISIONS = ("float32", "bf16", "fp16")


@st.composite
def optimizers(draw: st.DrawFn, lr: st.SearchStrategy[Any] | None = None) -> optim.Optimizer:
    """Draw an optimizer: with and without moments, wrapped, grouped, or from torch.

    Args:
        draw: given by Hypothesis.
        lr: rates and schedules; by default those of ``schedules()``.

    Example:
        >>> from hypothesis import find
        >>> find(optimizers(), lambda optimizer: True)
        SGD(lr=0.02, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=True, maximize=False)
    """
    rate = draw(schedules() if lr is None else lr)
    made: list[Callable[[], optim.Optimizer]] = [
        lambda: optim.SGD(lr=rate, momentum=0.9, nesterov=True),
        lambda: optim.AdamW(lr=rate, amsgrad=True),
        lambda: optim.RAdam(lr=rate),
        lambda: optim.NAdam(lr=rate, weight_decay=0.1, decoupled_weight_decay=True),
        lambda: optim.Rprop(lr=rate),
        lambda: optim.Adafactor(lr=rate),
        lambda: optim.LAMB(lr=rate, weight_decay=0.1),
        lambda: optim.ScheduleFreeAdamW(lr=rate, warmup_steps=2),
        lambda: optim.Lookahead(optim.Centralize(optim.Lion(lr=rate)), sync_period=2),
        lambda: optim.SkipLargeUpdates(optim.RMSprop(lr=rate, momentum=0.9), max_norm=2.0),
        lambda: optim.AddNoise(optim.ASGD(lr=rate, t0=2), eta=0.01),
        lambda: optim.no_decay_on_bias_and_norm(optim.AdamW(lr=rate, weight_decay=0.1)),
        lambda: optim.groups([("*bias", optim.SGD(lr=rate)), ("*", optim.Adam(lr=0.01))]),
        lambda: optim.groups(
            [
                (optim.is_matrix, optim.Muon(lr=rate)),
                ("*", optim.from_torch(torch.optim.Adadelta, lr=rate)),
            ]
        ),
    ]
    return made[draw(st.integers(0, len(made) - 1))]()


@functools.cache  # strategies are slow to build
def recipes(
    optimizer: st.SearchStrategy[Any] | None = None, precisions: tuple[str, ...] = PRECISIONS
) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the keyword arguments of ``functrain.program`` other than model and loss.

    Args:
        optimizer: by default those of ``optimizers()``.
        precisions: to choose from.

    Example:
        >>> from hypothesis import find
        >>> {name: v for name, v in find(recipes(), lambda _: True).items() if name != "optimizer"}
        {'ema': None, 'clip_norm': None, 'accumulate': 1, 'precision': 'float32',
         'nonfinite': 'raise'}
    """
    averages = [None, 0.9, EMA(0.8, every=2), EMA(0.99, warmup=True), SWA(start=3, every=2)]
    return st.fixed_dictionaries(
        {
            "optimizer": optimizers() if optimizer is None else optimizer,
            "ema": st.sampled_from(averages),
            "clip_norm": st.sampled_from([None, 0.1]),
            "accumulate": st.sampled_from([1, 2]),
            "precision": st.sampled_from(list(precisions)),
            "nonfinite": st.sampled_from(["raise", "skip", "ignore"]),
        }
    )
