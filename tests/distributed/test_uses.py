"""Uses of a sharded program besides its steps: generation, resumption, another recipe."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch
from sharded_runs import MUON
from torch import nn

import functrain as ft
from functrain import tree
from functrain.examples import chargpt
from functrain.generation import Sampler, generate
from functrain.testing import check_resumes


def texts() -> list[str]:
    """Return digests of texts by the parameters, and by their average, for each placement."""
    found = []
    for shard in ("none", "optimizer", "all"):
        torch.manual_seed(0)
        module = chargpt.GPT(length=24, width=66, layers=1, heads=2)
        plain = ft.program(module, chargpt.loss, MUON, ema=0.9)
        placement: Any = ft.Placement(shard=shard)
        program = ft.sharded(plain, placement, parts=3)
        tokens = torch.randint(0, 20, (6, 25), generator=torch.Generator().manual_seed(1))
        state, _ = program.train_step(program.init(seed=2), tokens)
        for weights in ("params", "ema"):
            made = generate(
                program,
                state,
                list(tokens[:2, :4]),
                12,
                sampler=Sampler(1.3),
                seed=1,
                weights=weights,
            )
            found.append(tree.digest(made))
    return found


def test_texts_of_a_placed_state() -> None:
    alone = texts()
    assert alone == alone[:2] * 3
    assert ranks.run(texts, 3) == [alone] * 3


def run(parts: int | None, **options: Any) -> dict[str, Any]:
    """Return the arguments of a run."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 65), nn.Dropout(0.2), nn.Linear(65, 64))
    plain = ft.program(module, lambda model, x: model(x).square().mean(), MUON, ema=0.9)
    program = ft.sharded(plain, ft.Placement(shard="all"), parts=parts)
    given = torch.randn(40, 64, generator=torch.Generator().manual_seed(5))
    return {"program": program, "data": ft.data.Batches(given, 8), **options}


def test_a_sharded_run_resumes() -> None:
    check_resumes(lambda: run(4), steps=7, cuts=[2, 5])


def resumption() -> None:
    check_resumes(lambda: run(4), steps=7, cuts=[2])


def test_resumption_is_checked_in_one_process() -> None:
    ranks.require_error(ft.errors.ConfigurationError, "expected one process, got 2", resumption, 2)


def continued(directory: str, parts: int | None, steps: int) -> None:
    ft.fit(**run(parts), until=ft.Steps(steps), directory=directory)


@pytest.mark.row(49)
def test_a_run_goes_on_with_its_parts_only(tmp_path: Any) -> None:
    ranks.run(continued, 3, str(tmp_path), None, 2)
    with pytest.raises(ft.errors.RunChangedError, match=r"recipe.parts: 3 in the .*, 1 now\n.*=3"):
        continued(str(tmp_path), None, 4)
    for error in ranks.outcomes(continued, 2, str(tmp_path), None, 4):
        assert isinstance(error, ft.errors.RunChangedError)
    continued(str(tmp_path), 3, 4)
