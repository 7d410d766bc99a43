"""An error of the model or the loss says where it was, and with which batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import functrain as ft
from functrain.errors import LossError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x))
        return out


def loss(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


PROGRAM = ft.program(Net(), loss, ft.optim.SGD(lr=0.1))
LABELS = torch.tensor([0, 2])


def note(batch: Any, evaluating: bool = False, program: ft.Program = PROGRAM) -> str:
    """Return the note of the error that a batch causes."""
    step = program.eval_step if evaluating else program.train_step
    with pytest.raises((RuntimeError, IndexError, ValueError)) as caught:
        step(program.init(seed=0), batch)
    where, *_ = caught.value.__notes__
    return where


def test_a_wrong_shape_names_the_layer() -> None:
    expected = (
        "'body.0', Linear(in_features=4, out_features=8, bias=True), in the step after step 0"
    )
    assert expected in note((torch.ones(2, 5), LABELS))
    assert "{0: f32[2,5], 1: i64[2] from 0 to 2}" in note((torch.ones(2, 5), LABELS))


def test_a_wrong_shape_names_the_layer_of_an_evaluation_and_of_a_part() -> None:
    assert "'body.0', " in note((torch.ones(2, 5), LABELS), evaluating=True)
    assert "in an evaluation" in note((torch.ones(2, 5), LABELS), evaluating=True)
    parts = ft.program(Net(), loss, ft.optim.SGD(lr=0.1), accumulate=2)
    assert "'body.0', " in note((torch.ones(2, 5), LABELS), program=parts)


def test_labels_out_of_range_show_their_range() -> None:
    found = note((torch.ones(2, 4), LABELS + 5))
    assert found.startswith("in the loss, in the step after step 0")
    assert "1: i64[2] from 5 to 7" in found


def test_a_loader_is_named_as_no_batch() -> None:
    loader = torch.utils.data.DataLoader([(torch.ones(4), 0)] * 3)
    assert "with the batch DataLoader (without tensors)" in note(loader)


def test_metrics_as_the_second_argument_of_a_loss_are_refused() -> None:
    def swapped(model: nn.Module, batch: Any) -> ft.Loss:
        return ft.Loss(loss(model, batch), {"accuracy": 1.0})  # type: ignore[arg-type]

    program = ft.program(Net(), swapped, ft.optim.SGD(lr=0.1))
    with pytest.raises(LossError, match="as weight, got dict"):
        program.train_step(program.init(seed=0), (torch.ones(2, 4), LABELS))


def test_errors_of_functrain_get_no_note() -> None:
    program = ft.program(Net(), lambda model, batch: model(batch[0]), ft.optim.SGD(lr=0.1))
    with pytest.raises(LossError) as caught:
        program.train_step(program.init(seed=0), (torch.ones(2, 4), LABELS))
    assert not hasattr(caught.value, "__notes__")
