"""Mistakes that people make in their first hour, each with a pattern of what its message says.

These are the golden texts: a pattern says what is wrong, the argument, name, layer or batch that
it is about, and what to do. Other messages are tested by their class and one fact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import functrain as ft


class Net(nn.Module):
    """Two layers for four features and three classes."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x), y)


X = torch.linspace(-1, 1, 64).reshape(16, 4)
Y = torch.arange(16) % 3


def batches(**options: Any) -> Any:
    return ft.data.Batches((X, Y), batch_size=8, **options)


def program(
    loss: Any = cross_entropy, model: Any = None, optimizer: Any = None, **options: Any
) -> Any:
    return ft.program(model or Net(), loss, optimizer or ft.optim.AdamW(lr=1e-3), **options)


def step(loss: Any = cross_entropy, batch: Any = (X, Y), model: Any = None, **options: Any) -> Any:
    made = program(loss, model, **options)
    return made.train_step(made.init(seed=0), batch)


def fit(data: Any = None, until: Any = "2 steps", **options: Any) -> Any:
    return ft.fit(program(), batches() if data is None else data, until=until, **options)


def _state() -> Any:
    return program().init(seed=0)


class Sized(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)


class Listed(nn.Module):
    """Keeps its layers in a list, where torch does not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(4, 4)]


def _loss(change: Any) -> Any:
    return lambda model, batch: change(cross_entropy(model, batch))


def _donated() -> None:
    made = ft.donated(program())
    state = made.init()
    made.train_step(state, (X, Y))
    made.train_step(state, (X, Y))


def _unscheduled() -> None:
    step(optimizer=ft.optim.SGD(lr=ft.schedules.Cosine(0.1)))


FIRST = [
    (
        lambda: ft.fit(program(), batches(), epochs=10),
        "fit() … takes no argument 'epochs' … until=\"10 epochs\"",
    ),
    (
        lambda: fit(validation_data=batches()),
        "fit() … takes no argument 'validation_data' … eval_data=",
    ),
    (
        lambda: fit(patience=3),
        "fit() … takes no argument 'patience' … early_stop=functrain.EarlyStop(patience=3)",
    ),
    (
        lambda: program(gradient_accumulation_steps=4),
        "program() … takes no argument 'gradient_accumulation_steps' … accumulate=4",
    ),
    (
        lambda: ft.optim.AdamW(learning_rate=0.1),
        "AdamW() … takes no argument 'learning_rate' … lr=0.1",
    ),
    (
        lambda: ft.optim.SGD(Net().parameters(), lr=0.1),
        "SGD() … got it by position (a generator) … the program gives them to its optimizer",
    ),
    (
        lambda: ft.schedules.Cosine(1e-3, T_max=100),
        "Cosine() … takes no argument 'T_max' … steps=100",
    ),
    (
        lambda: ft.data.Batches(X, Y, batch_size=8),
        "Batches() … takes 'batch_size' once, and got it by position (a Tensor … "
        "are one argument, (x, y)",
    ),
    (lambda: ft.Trainer, "'functrain' … no attribute 'Trainer' … functrain.fit(program"),
    (lambda: ft.AdamW, "'functrain' … no attribute 'AdamW' … functrain.optim.AdamW"),
    (lambda: program().parameters(), "Program … no attribute 'parameters' … state.params"),
    (lambda: _state().step, "TrainState … no attribute 'step' … state.counters.step"),
    (lambda: _state().params["head.weigth"], "of the state … no 'head.weigth' … 'head.weight'"),
    (lambda: step()[1]["acc"], "this step … no 'acc' … functrain.Loss(value, metrics="),
    (
        lambda: program(model=Sized),
        "model: Sized … is missing its arguments width … lambda: Sized(...)",
    ),
    (
        lambda: program(model=Listed()),
        "no parameter is trainable … the parameters are [] … nn.ModuleList",
    ),
    (
        lambda: program(optimizer=torch.optim.AdamW(Net().parameters())),
        "optimizer: expected one of functrain.optim … got a torch.optim.adamw.AdamW … "
        "functrain.optim.AdamW(lr=1e-3), or functrain.optim.from_torch(",
    ),
    (
        lambda: program(nn.CrossEntropyLoss()),
        "takes (input, target) … def loss(model, batch) … CrossEntropyLoss",
    ),
    (lambda: ft.optim.AdamW(lr=-1), "AdamW: lr … number >= 0 … got -1"),
    (
        lambda: program().init(params={"head.weigth": torch.ones(3, 8)}),
        "unexpected … 'head.weigth' … did you mean 'head.weight'",
    ),
    (
        lambda: step(_loss(lambda v: None)),
        "loss(model, batch) must return a scalar tensor or functrain.Loss … "
        "returned NoneType … return",
    ),
    (
        lambda: step(_loss(lambda v: v.detach())),
        "the loss does not depend on any trainable … is passed to loss(model, batch) … "
        "without .detach()",
    ),
    (_donated, "state. … given to a donated step … functrain.copy(state)"),
    (_unscheduled, "has no steps of its own … Cosine … steps=N"),
    (
        lambda: step(batch=(X, Y + 5)),
        "Target 5 is out of bounds … "
        "in the loss, in the step after step 0, with the batch {0: f32[16,4], 1: i64[16] "
        "from 5 to 7} … "
        "class labels are 0 to C - 1",
    ),
    (
        lambda: step(batch=(torch.ones(16, 5), Y)),
        "shapes cannot be multiplied … "
        "in 'body.0', Linear(in_features=4, out_features=8, bias=True), in the step after "
        "step 0, with the batch … "
        "takes 4 features in the last dimension and got 5",
    ),
    (lambda: step(batch=(X.double(), Y)), "same dtype … in 'body.0', Linear … x.float()"),
    (lambda: fit(until=10), 'a duration needs its unit … got 10 … "10 steps"'),
    (
        lambda: fit(TensorDataset(X, Y)),
        "TensorDataset … holds samples, not batches … functrain.data.Batches(dataset, batch_size)",
    ),
    (
        lambda: fit((X, Y)),
        "a tuple of tensors … columns … functrain.data.Batches((x, y), batch_size)",
    ),
    (
        lambda: fit(eval_data=batches(), early_stop=ft.EarlyStop("val_loss")),
        "early_stop … depends on 'val_loss' … did you mean 'eval/loss'",
    ),
    (
        lambda: fit(listeners=[lambda event: None]),
        "<lambda> … has none of the methods of a listener: on_train_begin … "
        'functrain.listeners.Every("100 steps", f)',
    ),
]
