"""Kernels in blocks, and as they run on accelerators: the same numbers."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from functrain.core.optimizer import Optimizer
from functrain.optim import foreach
from functrain.optim.methods.adadelta import Adadelta
from functrain.optim.methods.adagrad import Adagrad
from functrain.optim.methods.adamax import Adamax
from functrain.optim.methods.nadam import NAdam
from functrain.optim.methods.rmsprop import RMSprop

OPTIMIZERS: list[Any] = [
    NAdam(weight_decay=0.1),
    NAdam(weight_decay=0.1, decoupled_weight_decay=True),
    RMSprop(weight_decay=0.1, maximize=True),
    RMSprop(momentum=0.9, centered=True),
    Adagrad(weight_decay=0.1, lr_decay=0.1, maximize=True),
    Adadelta(weight_decay=0.1),
    Adamax(weight_decay=0.1),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to look at the value of a tensor, for which an accelerator would have to wait."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def draw() -> dict[str, Tensor]:
    image = torch.randn(5, 3, 4, 4, dtype=torch.float64)
    return {
        "large": torch.randn(70, 3, dtype=torch.float64),
        "image": image.to(memory_format=torch.channels_last),
        "turned": torch.randn(40, 3, dtype=torch.float64).t(),
        "small": torch.randn(3, dtype=torch.float64),
        "scale": torch.randn((), dtype=torch.float64),
        "none": torch.randn(0, 3, dtype=torch.float64),
    }


def train(optimizer: Optimizer, lr: Any = 0.1) -> dict[str, Tensor]:
    torch.manual_seed(0)
    params = draw()
    state = optimizer.init(params)
    for _ in range(8):
        optimizer.update_(draw(), state, params, lr)
    return params


@every_optimizer
def test_large_leaves_are_updated_in_parts(
    optimizer: Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(optimizer)
    monkeypatch.setattr(foreach, "_BLOCK_BYTES", 64 * 8)
    monkeypatch.setattr(foreach, "_THREAD_ELEMENTS", 0)
    counts = [[part.numel() for part in parts] for (parts,) in foreach.blocks([*draw().values()])]
    assert counts == [[64], [64], [64], [18], [64] * 1, [64], [64], [48], [64], [56], [3, 1, 0]]
    parts = train(optimizer)
    for path in whole:
        torch.testing.assert_close(parts[path], whole[path], rtol=1e-14, atol=1e-14)


@every_optimizer
@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1, dtype=torch.float64)])
def test_the_form_for_accelerators_never_looks_at_a_value(
    optimizer: Optimizer, lr: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(optimizer)
    module = importlib.import_module(type(optimizer).__module__)
    monkeypatch.setattr(module, "constant", lambda value, params: value)
    monkeypatch.setattr(module, "blocks", lambda *lists: [lists])
    monkeypatch.setattr(module, "_has_fused", lambda *_: False, raising=False)
    with NoWaiting():  # type: ignore[no-untyped-call]
        found = train(optimizer, lr)
    for path in expected:
        torch.testing.assert_close(found[path], expected[path], rtol=1e-12, atol=1e-12)


def test_a_factor_is_a_number_on_the_cpu() -> None:
    assert foreach.constant(0.5, [torch.zeros(2)]) == 0.5
    assert isinstance(foreach.constant(torch.tensor(0.5), [torch.zeros(2)]), float)


@pytest.mark.parametrize("factor", [-0.5, torch.tensor(-0.5)])
@pytest.mark.parametrize("maximize", [False, True])
def test_the_given_gradients_stay_as_they_are(factor: Any, maximize: bool) -> None:
    grads, params = [torch.ones(2)], [torch.full((2,), 4.0)]
    (found,) = foreach.directed(grads, params, factor, maximize)
    assert found.tolist() == ([-3.0] * 2 if maximize else [-1.0] * 2)
    assert grads[0].tolist() == [1.0, 1.0]
