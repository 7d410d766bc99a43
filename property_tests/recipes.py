"""Hypothesis strategies: programs over random models and recipes."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from models import CASES

import functrain as ft

schedules = st.sampled_from(
    [
        0.01,
        ft.schedules.Cosine(lr=0.02, steps=15),
        ft.schedules.WarmupLinear(lr=0.02, warmup_steps=3, steps=20),
        ft.schedules.Plateau(lr=0.02, patience=0),
        ft.schedules.Spike(
            ft.schedules.CosineRestarts(lr=0.02, period=5), burn_in=2, threshold=0.1
        ),
        ft.schedules.Joined([(0.3, ft.schedules.Linear(0.0, end=0.02)), (0.7, 0.02)], steps=30),
        ft.schedules.Warmup(factor=0.1, steps=4, then=ft.schedules.Linear(lr=0.02, steps=30)),
    ]
)


@st.composite
def optimizers(draw: st.DrawFn) -> Any:
    lr = draw(schedules)
    return draw(
        st.sampled_from(
            [
                ft.optim.SGD(lr=lr, momentum=0.9, nesterov=True),
                ft.optim.AdamW(lr=lr, amsgrad=True),
                ft.optim.RAdam(lr=lr),
                ft.optim.NAdam(lr=lr, weight_decay=0.1, decoupled_weight_decay=True),
                ft.optim.Rprop(lr=lr),
                ft.optim.Adafactor(lr=lr),
                ft.optim.LAMB(lr=lr, weight_decay=0.1),
                ft.optim.ScheduleFreeAdamW(lr=lr, warmup_steps=2),
                ft.optim.Lookahead(ft.optim.Centralize(ft.optim.Lion(lr=lr)), sync_period=2),
                ft.optim.SkipLargeUpdates(ft.optim.RMSprop(lr=lr, momentum=0.9), max_norm=2.0),
                ft.optim.AddNoise(ft.optim.ASGD(lr=lr, t0=2), eta=0.01),
                ft.optim.no_decay_on_bias_and_norm(ft.optim.AdamW(lr=lr, weight_decay=0.1)),
                ft.optim.groups([("*bias", ft.optim.SGD(lr=lr)), ("*", ft.optim.Adam(lr=0.01))]),
                ft.optim.groups(
                    [
                        (ft.optim.is_matrix, ft.optim.Muon(lr=lr)),
                        ("*", ft.optim.from_torch(torch.optim.Adadelta, lr=lr)),
                    ]
                ),
            ]
        )
    )


options = st.fixed_dictionaries(
    {
        "ema": st.sampled_from([None, 0.9, ft.EMA(0.8, every=2), ft.EMA(0.99, warmup=True)]),
        "clip_norm": st.sampled_from([None, 0.1]),
        "accumulate": st.sampled_from([1, 2]),
        "precision": st.sampled_from(["float32", "bf16", "fp16"]),
        "nonfinite": st.sampled_from(["raise", "skip", "ignore"]),
    }
)


@st.composite
def programs(draw: st.DrawFn) -> tuple[Any, ft.Program]:
    """A case of tests/models.py and a program of it."""
    case, chosen = draw(st.sampled_from(CASES)), draw(options)
    # torch has no fp16 LSTM on every CPU.
    assume(not (case.name == "lstm" and chosen["precision"] == "fp16"))
    return case, case.program(draw(optimizers()), **chosen)
