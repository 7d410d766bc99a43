"""Row 54: a run is branched from a state or from any checkpoint, and the family can be seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_runs import batches, program

import functrain as ft
from functrain import errors, tree
from functrain.checkpoint import read_manifest
from functrain.core.rng import Rng

pytestmark = pytest.mark.row(54)


def storages(state: ft.TrainState) -> set[int]:
    leaves = [leaf for _, leaf in tree.items(state) if isinstance(leaf, torch.Tensor)]
    return {leaf.untyped_storage().data_ptr() for leaf in leaves if leaf.numel()}


def test_a_fork_is_the_same_bytes_in_memory_of_its_own() -> None:
    state = ft.fit(program(ema=0.9), batches(), until="8 steps").state
    other = ft.fork(state)
    assert tree.diff(state, other) == []
    assert not storages(state) & storages(other)


def test_a_fork_outlives_the_donation_of_its_origin() -> None:
    donated = ft.donated(program())
    state = donated.init()
    kept = ft.fork(state)
    before = tree.digest(kept)
    batch = next(iter(ft.data.as_source(batches()).epoch(0, 0, 0, None)))
    donated.train_step(state, batch)
    assert tree.digest(kept) == before
    with pytest.raises(errors.DonatedStateError):
        ft.fork(state)


def test_another_seed_changes_the_randomness_to_come_and_nothing_else() -> None:
    whole = ft.fit(program(), batches(), until="12 steps")
    half = ft.fit(program(), batches(), until="8 steps").state
    same, other = ft.fork(half), ft.fork(half, seed=7)
    assert [str(each) for each in tree.diff(half, other)] == ["rng.seed: value: expected 0, got 7"]
    ends = [ft.fit(program(), batches(), until="12 steps", state=s).state for s in (same, other)]
    assert tree.diff(ends[0], whole.state) == []
    assert tree.diff(ends[1].counters, whole.state.counters) == []
    assert tree.diff(ends[1].params, whole.state.params)  # dropout drew something else
    assert ends[1].rng == Rng(7)


def test_from_a_checkpoint_by_hand(tmp_path: Path) -> None:
    """A fork with another seed of a step that was saved, and what it leaves as it is."""
    first = ft.fit(program(), batches(), until="9 steps", save_every="3 steps", directory=tmp_path)
    saved, _ = ft.Checkpoints(tmp_path).restore(6)
    fork = ft.fit(program(), batches(), until="9 steps", state=ft.fork(saved.train, seed=1))
    assert fork.history["step"] == [7, 8, 9]
    assert fork.state.counters.step == first.state.counters.step
    assert tree.diff(fork.state.params, first.state.params)


def test_a_fork_of_a_fork_names_its_own_parent(tmp_path: Path) -> None:
    options = {"save_every": "3 steps"}
    ft.fit(program(), batches(), until="9 steps", directory=tmp_path / "a", **options)
    origins = [tmp_path / "a" / "step-00000006", tmp_path / "b" / "step-00000009"]
    for name, origin, until in (("b", origins[0], 9), ("c", origins[1], 12)):
        ft.fit(
            program(),
            batches(),
            until=f"{until} steps",
            directory=tmp_path / name,
            resume=origin,
            **options,
        )
    parents = [
        read_manifest(ft.Checkpoints(tmp_path / name).path(step)).info["parent"]
        for name, step in (("b", 9), ("c", 12))
    ]
    assert parents == [str(origin) for origin in origins]
