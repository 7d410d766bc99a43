"""Hypothesis strategies: programs over random models and recipes."""

from __future__ import annotations

from typing import Any

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
                ft.optim.groups([("*bias", ft.optim.SGD(lr=lr)), ("*", ft.optim.Adam(lr=0.01))]),
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
