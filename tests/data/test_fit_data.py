"""Every kind of data through ``fit``: a run that was cut within epochs, and the same run uncut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data_kinds import MAKERS, MORE_WORKERS, CutAt, disturb

import functrain as ft
from functrain import tree


def loss(model: Any, batch: Any) -> torch.Tensor:
    x = torch.as_tensor(batch, dtype=torch.float32).flatten()
    return (model.weight.squeeze() * x.sum() / 1000 - 1).square()


@pytest.mark.row(30)
@pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning")
@pytest.mark.sweep("kind")
@pytest.mark.parametrize(
    ("kind", "accumulate"),
    [
        *(
            pytest.param(kind, 1, marks=[pytest.mark.long] if kind in MORE_WORKERS else [])
            for kind in MAKERS
        ),
        *((kind, 2) for kind in MAKERS if "workers" not in kind),
    ],
)
def test_an_interrupted_run_equals_an_uninterrupted_one(
    kind: str, accumulate: int, tmp_path: Path
) -> None:
    optimizer = ft.optim.SGD(lr=0.01, momentum=0.9)
    program = ft.program(torch.nn.Linear(1, 1), loss, optimizer, accumulate=accumulate)

    def run(directory: str, cuts: list[int]) -> ft.Run:
        for number, cut in enumerate([*cuts, 99]):
            disturb(100 * number)
            result = ft.fit(
                program,
                MAKERS[kind](),
                until="2 epochs",
                directory=tmp_path / directory,
                listeners=[CutAt(cut)],
            )
        return result

    straight, resumed = run("one", []), run("two", [2, 4])
    assert straight.state.counters.epoch == 2
    assert tree.diff(straight.state, resumed.state) == []
    assert tree.diff(straight.history.rows, resumed.history.rows) == []
