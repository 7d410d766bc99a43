"""Views that the compiler's own layout of a tensor makes impossible."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain.transforms.graph.lowering import loosen


class Cached(nn.Module):
    """Attention whose keys are appended to a cache, which is empty in training."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one.unflatten(-1, (2, 4)).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        k, v = (torch.cat([one.new_empty(0), one], dim=-2) for one in (k, v))
        return ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.sweep
@pytest.mark.parametrize("donated", [True, False])
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
    """A copy would lose the write."""

    def function(x: Tensor) -> Tensor:
        written, read = x * 1, x * 2
        written.view(-1).mul_(3)
        return written + read.view(4, 3)

    captured = make_fx(function)(torch.ones(4, 3))
    loosen(captured)
    view, reshape = torch.ops.aten.view.default, torch.ops.aten.reshape.default
    found = [node.target for node in captured.graph.nodes if node.target in (view, reshape)]
    assert found == [view, reshape]
    assert torch.equal(captured(torch.ones(4, 3)), torch.full((4, 3), 5.0))
