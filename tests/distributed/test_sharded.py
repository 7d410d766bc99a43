"""Sharded steps on real processes: the number of processes and the placement change no bit."""

from __future__ import annotations

from typing import Any

import pytest
import ranks
import torch
from sharded_runs import batches, digests, every_placement, made, sharded_digests

import functrain as ft

SHARDS = ["none", "optimizer", "all"]
# A batch that four parts divide, one that they do not, one of fewer samples than parts.
UNEVEN = [8, 22, 3]
SEVEN = ["AdamW", "SGD", "Adam", "RAdam", "Lion", "NAdam", "RMSprop"]


@pytest.mark.row(49)
@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("model", ["MLP", "GPT", "Tiny"])
def test_one_part_on_one_rank_is_the_plain_program(model: str, shard: Any) -> None:
    assert sharded_digests(model, [8, 12], 1, shard) == digests(made(model), model, [8, 12])


@pytest.mark.row(59)
@pytest.mark.sweep("model")
@pytest.mark.parametrize("n", [3, 2, 4])
@pytest.mark.parametrize(("model", "sizes"), [("Tiny", UNEVEN), ("MLP", [16, 22]), ("GPT", UNEVEN)])
def test_ranks_and_placements_change_no_bit(model: str, sizes: list[int], n: int) -> None:
    alone = digests(made(model, accumulate=4), model, sizes)
    assert sharded_digests(model, sizes, 4, "none") == alone
    assert ranks.run(every_placement, n, model, sizes, 4, ["AdamW"]) == [[alone] * 3] * n


@pytest.mark.row(59)
@pytest.mark.long
@pytest.mark.parametrize("model", ["MLP", "GPT"])
def test_optimizers(model: str) -> None:
    names = [*SEVEN, "LAMB", "Adafactor"]
    alone = every_placement(model, [16, 22], 4, names)
    assert ranks.run(every_placement, 3, model, [16, 22], 4, names) == [alone] * 3


@pytest.mark.row(57)
@pytest.mark.parametrize(
    "options", [{"precision": "fp16"}, {"clip_norm": None, "clip_value": 0.01}, {"accumulate": 2}]
)
def test_recipes(options: dict[str, Any]) -> None:
    arguments = ("Tiny", UNEVEN, 3, "optimizer", "AdamW", True, options)
    alone = sharded_digests(*arguments)
    assert ranks.run(sharded_digests, 2, *arguments) == [alone] * 2


class Counting(torch.nn.Module):
    """Has buffers of every kind that forwards change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(16, 64))
        self.norm = torch.nn.BatchNorm1d(64, momentum=None)
        self.register_buffer("tokens", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tokens += torch.bincount((x[:, 0] > 0).long(), minlength=4)
        self.seen += len(x)
        out: torch.Tensor = self.norm(self.linear(x))
        return out


def counted(parts: int) -> Any:
    """Return the buffers after three steps."""
    torch.manual_seed(0)
    loss = lambda model, batch: model(batch[0]).square().mean()  # noqa: E731
    plain = ft.program(Counting(), loss, ft.optim.SGD(lr=0.0))
    program = ft.sharded(plain, parts=parts, buffers={"seen": "sum"})
    state = program.init()

    for batch in batches("MLP", [8, 10, 16]):
        state, _ = program.train_step(state, batch)
    return {path: value.tolist() for path, value in state.buffers.items()}


def test_buffers() -> None:
    alone, plain = counted(4), counted(1)
    assert ranks.run(counted, 3, 4) == [alone] * 3
    assert alone["seen"] == 34.0
    assert alone["tokens"] == plain["tokens"]
    assert sum(alone["tokens"]) == 34
    # Three batches of four parts are twelve batches of the mean over all batches.
    assert alone["norm.num_batches_tracked"] == 12


def test_a_rule_by_pattern_counts_for_batch_norm_too() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(16))
    loss = lambda model, batch: model(batch).square().mean()  # noqa: E731
    plain = ft.program(module, loss, ft.optim.SGD(lr=0.0))
    program = ft.sharded(plain, parts=2, buffers={"0.running_mean": "first"})
    batch = torch.randn(8, 16)
    state, _ = program.train_step(program.init(), batch)
    torch.testing.assert_close(state.buffers["0.running_mean"], 0.1 * batch[:4].mean(0))
    assert state.buffers["0.num_batches_tracked"] == 2


def test_a_pattern_that_matches_no_buffer_is_an_error() -> None:
    with pytest.raises(ft.errors.ConfigurationError, match=r"'runing_mean'.*matches none"):
        ft.sharded(made("MLP"), parts=2, buffers={"runing_mean": "first"})


def with_too_few_parts() -> None:
    ft.sharded(made("Tiny"), parts=1)


def test_more_processes_than_parts_are_an_error_on_every_rank() -> None:
    ranks.require_error(
        ft.errors.ConfigurationError, "parts: expected 2 or more", with_too_few_parts, 2
    )


def raising(rank: int) -> None:
    program = made("Tiny")

    def loss(model: Any, batch: Any) -> torch.Tensor:
        if torch.distributed.get_rank() == rank:
            raise ValueError("bad sample")
        return model(batch[0]).sum()

    program = ft.sharded(ft.program(torch.nn.Linear(16, 3), loss, ft.optim.SGD(lr=0.1)), parts=4)

    program.train_step(program.init(), batches("Tiny", [8])[0])


@pytest.mark.parametrize("rank", [0, 2])
def test_a_loss_that_raises_on_one_rank_ends_all(rank: int) -> None:
    for other, error in enumerate(ranks.outcomes(raising, 3, rank)):
        expected = ValueError if other == rank else ft.errors.RankFailedError
        assert isinstance(error, expected)
        assert "bad sample" in str(error)
        assert other == rank or f"rank {rank}" in str(error)


def test_a_sharded_program_is_neither_compiled_nor_sharded_again() -> None:
    program = ft.sharded(made("Tiny"), parts=2)
    with pytest.raises(ft.errors.ConfigurationError, match="compiled cannot take a sharded"):
        ft.compiled(program)
    with pytest.raises(ft.errors.ConfigurationError, match="sharded already"):
        ft.sharded(program, parts=2)
    with pytest.raises(ft.errors.ConfigurationError, match="is compiled"):
        ft.sharded(ft.compiled(made("Tiny"), backend="eager"), parts=2)
