"""The search for the largest batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import tree
from functrain.core.batch import size
from functrain.errors import ConfigurationError, FinderError
from functrain.finders import find_batch_size


def limited(most: int, error: BaseException | None = None) -> ft.Program:
    """Return a program whose steps run out of memory beyond some batch size."""

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        x = batch["x"] if isinstance(batch, dict) else batch
        if len(x) > most:
            if error is not None:
                raise error
            torch.empty(2**60)  # the message of the CPU allocator
        return model(x).square().mean()

    return ft.program(nn.Linear(2, 1), loss, ft.optim.Adam(lr=0.1))


@pytest.mark.sweep("most")
@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("CUDA out of memory")])
@pytest.mark.parametrize(("most", "found"), [(1, 1), (8, 8), (100, 96), (127, 120), (512, 512)])
def test_the_size_is_doubled_then_refined_to_an_eighth(
    most: int, found: int, error: BaseException | None
) -> None:
    program = limited(most, error)
    sizes = find_batch_size(program, program.init(), torch.ones(3, 2), limit=512, repeats=1)
    assert sizes.largest == found
    assert max(sizes.speeds) == found
    assert all(size > most for size in sizes.failed)
    assert all(speed > 0 for speed in sizes.speeds.values())
    assert sizes.fastest in sizes.speeds


def test_other_errors_are_raised() -> None:
    program = limited(4, RuntimeError("shapes do not fit"))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        find_batch_size(program, program.init(), torch.ones(1, 2))


def test_the_state_is_unchanged_even_with_a_donated_program() -> None:
    program = ft.donated(limited(50))
    state = program.init()
    kept, generator = ft.copy(state), torch.get_rng_state()
    find_batch_size(program, state, torch.ones(1, 2), repeats=1)
    assert tree.diff(state, kept) == []
    assert torch.equal(torch.get_rng_state(), generator)


def test_batches_are_created_or_repeated_from_one() -> None:
    asked: list[int] = []
    given: list[Any] = []

    def make(samples: int) -> Any:
        asked.append(samples)
        return {"x": torch.ones(samples, 2)}

    program = limited(64)
    find_batch_size(program, program.init(), make, start=3, limit=20, repeats=1)
    assert asked == [3, 6, 12]

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        given.append(batch)
        return model(batch["x"]).mean()

    looking = ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
    batch = {"x": torch.arange(6.0).reshape(3, 2), "text": ["a", "b", "c"], "scale": torch.ones(())}
    find_batch_size(looking, looking.init(), batch, start=5, limit=5, repeats=1)
    assert size(given[0]) == 5
    assert given[0]["x"].tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert given[0]["text"] == ["a", "b", "c", "a", "b"]
    assert given[0]["scale"].ndim == 0


def test_mistakes_and_a_failed_search_are_errors() -> None:
    program = limited(2)
    for options in ({"start": 0}, {"start": 9, "limit": 8}, {"repeats": 0}):
        with pytest.raises(ConfigurationError, match="expects 1 <= start <= limit"):
            find_batch_size(program, program.init(), torch.ones(1, 2), **options)
    with pytest.raises(ConfigurationError, match="without samples"):
        find_batch_size(program, program.init(), torch.ones(0, 2))
    with pytest.raises(FinderError, match="a batch of 4 does not fit"):
        find_batch_size(program, program.init(), torch.ones(1, 2), start=4)
