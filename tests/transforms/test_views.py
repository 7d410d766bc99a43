"""Views that the compiler's own layout of a tensor makes impossible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import functrain as ft


class Cached(nn.Module):
    """Attention whose keys are appended to a cache, which is empty in training."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one.unflatten(-1, (2, 4)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        k, v = (torch.cat([one.new_empty(0), one], dim=-2) for one in (k, v))
        return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("donated", [False, True])
def test_a_concatenation_with_an_empty_tensor_is_compiled(donated: bool) -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    program = ft.program(
        Cached(), lambda model, x: (model(x) - x).square().mean(), ft.optim.SGD(lr=0.1)
    )
    compiled = ft.compiled(program)
    compiled = ft.donated(compiled) if donated else compiled
    expected, found = program.init(), compiled.init()
    for _ in range(3):
        expected, _ = program.train_step(expected, x)
        found, _ = compiled.train_step(found, x)
    for path, value in expected.params.items():
        torch.testing.assert_close(found.params[path], value)


def test_a_view_that_is_written_to_stays_one() -> None:
    """The write must reach what it is a view of."""

    class Writing(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x) * 1
            out.view(-1).mul_(2)
            return out

    program = ft.program(
        Writing(4, 4), lambda model, x: model(x).square().mean(), ft.optim.SGD(lr=0.1)
    )
    compiled = ft.compiled(program)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    _, expected = program.train_step(program.init(), x)
    _, found = compiled.train_step(compiled.init(), x)
    torch.testing.assert_close(found["loss"], expected["loss"])
