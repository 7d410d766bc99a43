"""Reads and recipes by which one rank could mislead the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from torch import nn

import functrain as ft
from functrain import tree
from functrain.distributed import current

RANKS = pytest.mark.xfail(
    strict=True,
    reason="Ranks that cannot mislead, memory that shrinks, and the first GPU",
)


def made(shard: Any, lr: float = 0.01, model: Any = None) -> ft.Program:
    torch.manual_seed(0)
    model = model or nn.Linear(64, 128)
    loss = lambda m, x: m(x).square().mean()  # noqa: E731
    plain = ft.program(model, loss, ft.optim.AdamW(lr=lr))
    return ft.sharded(plain, ft.Placement(shard=shard), parts=4, timeout=15)


def norms(shard: str) -> tuple[float, float]:
    program = made(shard)
    state = program.init()
    return state.params["weight"].norm().item(), program.gathered(state).params[
        "weight"
    ].norm().item()


@RANKS
def test_an_ordinary_read_of_a_placed_state_gives_the_whole_value() -> None:
    for found, whole in ranks.run(norms, 2, "all"):
        assert found == pytest.approx(whole, rel=1e-5)


def read_alone() -> str:
    program = made("all")
    state = program.init()
    if current().rank:
        return "not asked"
    try:
        state.params["weight"].norm().item()
    except ft.errors.RankMismatchError as error:
        return type(error).__name__
    return "answered"


@RANKS
def test_a_read_on_one_rank_alone_is_refused() -> None:
    assert ranks.run(read_alone, 2)[0] == "RankMismatchError"


def with_own_rate() -> str:
    program = made("none", 0.01 * (1 + current().rank))
    try:
        program.train_step(program.init(), torch.ones(16, 64))
    except ft.errors.RankMismatchError:
        return "refused"
    return "trained"


@RANKS
def test_recipes_that_differ_between_ranks_are_refused_by_a_step() -> None:
    assert ranks.run(with_own_rate, 2) == ["refused"] * 2


def saved(directory: str, shard: str) -> str:
    program = made(shard)
    state, _ = program.train_step(program.init(), torch.ones(16, 64))
    ft.save(Path(directory) / shard, state)
    return tree.digest(program.gathered(state))


@RANKS
def test_one_line_saves_every_placement_on_all_ranks(tmp_path: Path) -> None:
    for shard in ("none", "all"):
        ranks.run(saved, 2, str(tmp_path), shard)


def with_own_layers() -> str:
    rank = current().rank
    layers = nn.Sequential(nn.Linear(64, 64), [nn.GELU(), nn.ReLU()][rank], nn.Linear(64, 1))
    program = made("none", model=layers)
    try:
        ft.fit(program, [torch.ones(16, 64)] * 2, until="2 steps", progress=False)
    except ft.errors.RankMismatchError:
        return "refused"
    return "trained"


@RANKS
def test_layers_that_differ_between_ranks_are_refused() -> None:
    assert ranks.run(with_own_layers, 2) == ["refused"] * 2
