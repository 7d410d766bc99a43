"""Draw learning-rate schedules of every kind, alone and nested."""

from __future__ import annotations

import functools
from typing import Any

from hypothesis import strategies as st

from functrain import schedules as fs

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
