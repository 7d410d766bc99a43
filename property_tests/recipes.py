"""Programs over the models of tests/support, with recipes of ``functrain.testing.strategies``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from models import CASES

import functrain as ft
from functrain.testing.strategies import Case, cases, optimizers, recipes, schedules

__all__ = ["optimizers", "programs", "recipes", "schedules", "trainable"]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Any, ft.Program]:
    """A case of tests/support/models.py and a program of it."""
    case, chosen = draw(st.sampled_from(CASES)), draw(recipes())
    # torch has no LSTM in half precision on every CPU.
    assume(case.name != "lstm" or chosen["precision"] == "float32")
    return case, case.program(**chosen)


def trainable() -> st.SearchStrategy[Case]:
    """Cases that torch can differentiate: not those with two in-place blocks in a row."""
    return cases().filter(lambda case: ("ReLU",) * 2 not in pairwise(case.architecture.blocks))
