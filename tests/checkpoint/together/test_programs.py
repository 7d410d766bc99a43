"""States of sharded programs: saved on some ranks, loaded on others, trained on as if never cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ranks
from sharded_runs import batches, made
from together_files import payload

import functrain as ft
from functrain import tree
from functrain.distributed import current

SIZES = [8, 22, 3]


def trained(program: Any, state: Any, sizes: list[int]) -> Any:
    for batch in batches("GPT", sizes):
        state, _ = program.train_step(state, batch)
    return state


def sharded(shard: Any) -> Any:
    return ft.sharded(made("GPT"), ft.Placement(shard=shard), parts=4)


def save(directory: Path, shard: str) -> None:
    """Save a placed state together, and the gathered one on rank 0 alone."""
    program = sharded(shard)
    state = trained(program, program.init(seed=0), SIZES)
    step = state.counters.step
    ft.save(directory / "together", state, step=step)
    whole = program.gathered(state)
    if current().rank == 0:
        ft.save(directory / "alone", whole, step=step)


def resume(directory: Path, shard: str) -> str:
    program = sharded(shard)
    state = ft.load(directory / "together", like=program.init(seed=1))
    return tree.digest(program.gathered(trained(program, state, SIZES)))


@pytest.mark.row(57)
@pytest.mark.sweep
@pytest.mark.parametrize("shard", ["all", "optimizer"])
def test_saved_on_three_and_resumed_on_others(tmp_path: Path, shard: str) -> None:
    ranks.run(save, 3, tmp_path, shard)
    assert payload(tmp_path / "together") == payload(tmp_path / "alone")
    alone = resume(tmp_path, "none")
    for n, other in ((1, shard), (2, shard), (4, shard), (2, "none")):
        assert ranks.run(resume, n, tmp_path, other) == [alone] * n
