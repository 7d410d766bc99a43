"""Runs of real processes that read their data by parts end in the bits of one process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import ranks
import torch
from sharded_runs import Tiny, classify
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import functrain as ft
from functrain import tree
from functrain.data import Batches, Mixture
from functrain.errors import RankMismatchError, UnsupportedError


class Noisy(Dataset[tuple[Tensor, int]]):
    """Samples that are augmented at random."""

    def __len__(self) -> int:
        return 27

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randn(16) + index % 5, index % 3


def columns() -> Batches:
    return Batches((torch.linspace(-1, 1, 20 * 16).reshape(20, 16), torch.arange(20) % 3), 6)


def noisy_collate(samples: list[Any]) -> Any:
    x, y = torch.utils.data.default_collate(samples)
    return x + torch.rand(()), y


def shuffled_by_rank() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(int(os.environ.get("RANK", 0)))
    return DataLoader(Noisy(), 6, shuffle=True, generator=generator)


def split_by_rank() -> DataLoader[Any]:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return DataLoader(Noisy(), 6, sampler=DistributedSampler(Noisy(), world, rank))


KINDS: dict[str, Callable[[], Any]] = {
    "samples": lambda: Batches(Noisy(), 6, seed=3, collate=noisy_collate),
    "mixture": lambda: Mixture([Batches(Noisy(), 6), columns(), DataLoader(Noisy(), 5)]),
    "loader": lambda: DataLoader(Noisy(), 6, shuffle=True),
    "shuffled by rank": shuffled_by_rank,
    "split by rank": split_by_rank,
}


def trained(kind: str, accumulate: int, steps: int = 9) -> str:
    """Return the digest of the state after some steps by parts of four."""
    torch.manual_seed(0)
    optimizer = ft.optim.AdamW(lr=1e-2)
    plain = ft.program(Tiny(), classify, optimizer, clip_norm=1.0, accumulate=accumulate)
    program = ft.sharded(plain, parts=4)
    state = program.init()
    for state, _ in ft.iterate(program, state, KINDS[kind](), until=ft.Steps(steps)):
        pass
    return tree.digest(program.gathered(state))


@pytest.mark.sweep
@pytest.mark.parametrize(("n", "accumulate"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("kind", ["mixture", "samples", "loader"])
def test_ranks_that_read_their_parts_end_in_the_bits_of_one_process(
    kind: str, n: int, accumulate: int
) -> None:
    assert ranks.run(trained, n, kind, accumulate) == [trained(kind, accumulate)] * n


def test_ranks_that_draw_other_batches_are_named() -> None:
    ranks.require_error(RankMismatchError, "data 0x", trained, 2, "shuffled by rank", 1)


def test_a_sampler_that_splits_the_data_is_refused_on_every_rank() -> None:
    ranks.require_error(
        UnsupportedError,
        "DataLoader.sampler, a DistributedSampler, gives each of 2 ranks",
        trained,
        2,
        "split by rank",
        1,
    )
