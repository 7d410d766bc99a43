"""Normalization as formulas against torch's kernels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from functrain.populations.formulas import Formulas

LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "1d": (lambda: nn.BatchNorm1d(3), (5, 3)),
    "1d of sequences": (lambda: nn.BatchNorm1d(3), (5, 3, 4)),
    "2d": (lambda: nn.BatchNorm2d(3), (5, 3, 4, 2)),
    "plain": (lambda: nn.BatchNorm2d(3, affine=False, track_running_stats=False), (5, 3, 4, 2)),
    "instance": (lambda: nn.InstanceNorm2d(3), (5, 3, 4, 2)),
    "instance with all": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        (5, 3, 4, 2),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_values_gradients_and_statistics_are_those_of_torch(name: str, training: bool) -> None:
    make, shape = LAYERS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def results(formula: bool) -> Any:
        layer, given = make().double().train(training), x.clone().requires_grad_()
        for parameter in layer.parameters():
            nn.init.constant_(parameter, 0.7)
        if formula:
            with Formulas():
                out = layer(given)
        else:
            out = layer(given)
        out.square().mul(torch.arange(out.numel()).reshape(out.shape)).sum().backward()
        grads = [p.grad for p in layer.parameters()]
        return [out.detach(), given.grad, *grads, *layer.buffers()]

    torch.testing.assert_close(results(True), results(False), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.InstanceNorm1d(3)])
def test_a_single_value_is_refused_as_by_torch(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match="Expected more than 1"), Formulas():
        layer(torch.ones(1, 3, 1))
