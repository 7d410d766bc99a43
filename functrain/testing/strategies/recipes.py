"""Draw recipes and their learning-rate schedules, of every kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st

from functrain import optim
from functrain import schedules as fs
from functrain.core.ema import EMA, SWA

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
        lambda: optim.Adafactor(lr=rate),
        lambda: optim.LAMB(lr=rate, weight_decay=0.1),
        lambda: optim.ScheduleFreeAdamW(lr=rate, warmup_steps=2),
        lambda: optim.Lookahead(optim.AdaptiveGradClip(optim.Lion(lr=rate), 0.1), sync_period=2),
        lambda: optim.ClipByBlockRms(optim.RMSprop(lr=rate, momentum=0.9), threshold=2.0),
        lambda: optim.from_torch(torch.optim.ASGD, lr=rate, t0=2),
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


Schedules = st.SearchStrategy[Any]


@functools.cache  # strategies are slow to build
def schedules(
    peak: float = 0.02, observing: bool = True, nested: bool = True, open_ended: bool = False
) -> Schedules:
    """Draw a number or a schedule.

    Args:
        peak: the highest rate.
        open_ended: also those that end with the run; only ``fit`` and ``with_horizon`` give them
            its length.
        observing: also those that go by losses or metrics.
        nested: also those made of others.

    Example:
        >>> from hypothesis import find
        >>> find(schedules(), lambda schedule: True)
        0.02
    """
    lr = st.sampled_from([peak, peak / 2])
    steps = st.integers(10, 40)
    found = _closed(lr, steps | st.none() if open_ended else steps)
    found += _observing(lr) if observing else []
    return st.one_of(found + (_nested(lr) if nested else []))


def _closed(lr: Schedules, steps: Schedules) -> list[Schedules]:
    few = st.integers(1, 5)
    return [
        lr,
        st.builds(fs.Cosine, lr=lr, steps=steps),
        st.builds(fs.Linear, lr=lr, steps=steps),
        st.builds(fs.WarmupLinear, lr=lr, warmup_steps=few, steps=steps),
        st.builds(fs.WarmupCosine, lr=lr, warmup_steps=few, steps=steps),
        st.builds(fs.InverseSqrt, lr=lr, warmup_steps=few),
        st.builds(fs.Step, lr, few, st.sampled_from([0.5, 0.9])),
        st.builds(fs.CosineRestarts, lr=lr, period=st.integers(3, 8)),
    ]


def _observing(lr: Schedules) -> list[Schedules]:
    inner = st.builds(fs.CosineRestarts, lr=lr, period=st.integers(3, 8))
    return [
        # By steps: one that goes by evaluations is refused in a run that has none.
        st.builds(fs.Plateau, lr=lr, patience=st.integers(0, 2), observes=st.just("step")),
        st.builds(fs.Spike, inner, burn_in=st.just(2), threshold=st.just(0.1)),
    ]


def _nested(lr: Schedules) -> list[Schedules]:
    falling = st.builds(fs.Linear, lr=lr, steps=st.just(30))
    rising = st.builds(fs.Linear, st.just(0.0), end=lr)
    return [
        st.builds(fs.Warmup, factor=st.just(0.1), steps=st.integers(1, 5), then=falling),
        st.builds(_joined, st.sampled_from([0.3, 0.5]), rising, lr),
    ]


def _joined(part: float, first: Any, second: Any) -> fs.Schedule:
    return fs.Joined([(part, first), (1 - part, second)], steps=30)
