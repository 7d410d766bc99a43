"""Ranks that save together write the files of one process."""

from __future__ import annotations

from pathlib import Path

import placed_states
import pytest
import ranks
import torch
from together_files import payload

import functrain as ft
from functrain import tree
from functrain.distributed import current


def save(directory: Path) -> Path:
    return ft.save(directory / "together", placed_states.placed(current()), step=3, info={"a": 1})


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_files_are_those_of_one_process(tmp_path: Path, n: int) -> None:
    alone = ft.save(tmp_path / "alone", placed_states.whole(), step=3, info={"a": 1})
    paths = ranks.run(save, n, tmp_path)
    assert paths == [tmp_path / "together"] * n
    assert payload(tmp_path / "together") == payload(alone)
    assert tree.equal(ft.load(tmp_path / "together"), placed_states.whole())


def large() -> dict[str, torch.Tensor]:
    """Return leaves of several chunks, whose borders are in the middle of blocks."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"first": 999, "long": 1_100_000, "odd": 33_333, "last": 77}
    return {
        name: torch.randint(0, 256, (size, 64), generator=generator, dtype=torch.uint8)
        for name, size in sizes.items()
    }


def save_large(directory: Path) -> None:
    world = current()
    cut = {name: placed_states.rows(world, leaf) for name, leaf in large().items()}
    whole = {name: placed_states.owned(world, leaf, 1) for name, leaf in large().items()}
    ft.save(directory / "large", {"params": cut, "optimizer": whole, "ema": large()})


@pytest.mark.sweep
@pytest.mark.parametrize("n", [2, 3])
def test_leaves_of_several_chunks(tmp_path: Path, n: int) -> None:
    state = {"params": large(), "optimizer": large(), "ema": large()}
    alone = ft.save(tmp_path / "alone", state)
    ranks.run(save_large, n, tmp_path)
    assert payload(tmp_path / "large") == payload(alone)


def unusual() -> dict[str, torch.Tensor]:
    """Return tensors that are tied, or not contiguous."""
    weight = torch.randn(130, 64, generator=torch.Generator().manual_seed(0))
    images = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    return {
        "tied": weight,
        "again": weight,
        "transposed": torch.arange(130.0 * 64).reshape(64, 130).T,
        "channels_last": images.to(memory_format=torch.channels_last),
        "conjugate": torch.arange(6.0).to(torch.complex64).conj(),
        "scalar": torch.tensor(7),
        "every_other": torch.arange(20)[::2],
        "float8": torch.ones(64, 2).to(torch.float8_e4m3fn),
    }


def save_unusual(directory: Path) -> None:
    world, state = current(), unusual()
    cut = placed_states.rows(world, state["tied"])
    owned = placed_states.owned(world, state["tied"], 1)
    ft.save(
        directory / "unusual",
        {
            "params": {**state, "tied": cut, "again": cut},
            "owned": {"tied": owned, "again": owned},
            "float8": placed_states.rows(world, state["float8"]),
        },
    )


def test_tied_and_strided_leaves(tmp_path: Path) -> None:
    state = unusual()
    owned = {name: state["tied"].clone() for name in ("tied",)}
    owned["again"] = owned["tied"]
    tree_ = {"params": state, "owned": owned, "float8": state["float8"].clone()}
    alone = ft.save(tmp_path / "alone", tree_)
    ranks.run(save_unusual, 3, tmp_path)
    assert payload(tmp_path / "unusual") == payload(alone)


def save_frozen(directory: Path) -> list[list[int]]:
    """Save three checkpoints, the last of which has other frozen tensors."""
    world, store = current(), ft.Checkpoints(directory)
    frozen = {"weight": torch.ones(40, 64), "bias": torch.zeros(40)}
    placed = {name: placed_states.rows(world, leaf) for name, leaf in frozen.items()}
    for step in (1, 2, 3):
        if step == 3:
            placed["bias"] = placed_states.rows(world, frozen["bias"] + 1)
        state = {"params": {**placed, "w": placed_states.rows(world, torch.full((8, 64), step))}}
        store.save(state, step=step, frozen=["params.weight", "params.bias"])
    return [store.steps()]


def test_unchanged_frozen_tensors_are_linked(tmp_path: Path) -> None:
    ranks.run(save_frozen, 2, tmp_path / "run")
    store = ft.Checkpoints(tmp_path / "run")
    inodes = [(store.path(step) / "frozen.safetensors").stat().st_ino for step in (1, 2, 3)]
    assert inodes[0] == inodes[1] != inodes[2]
    for step in (1, 2, 3):
        store.verify(step)
    assert store.restore(3)[0]["params"]["bias"].tolist() == [1.0] * 40
    assert store.restore(2)[0]["params"]["bias"].tolist() == [0.0] * 40


def keep_two(directory: Path) -> list[int]:
    store = ft.Checkpoints(directory, keep_last=1, keep_best=1)
    for step, loss in enumerate([0.3, 0.1, 0.4, 0.2]):
        store.save(placed_states.placed(current(), step), step=step, metrics={"loss": loss})
    like = placed_states.placed(current(), 9)
    return [*store.steps(), store.restore("best", like=like)[1].step or 0]


def test_rank_0_prunes_and_chooses(tmp_path: Path) -> None:
    assert ranks.run(keep_two, 2, tmp_path / "run") == [[1, 3, 1]] * 2
