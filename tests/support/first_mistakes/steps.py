"""Steps that fail: what a loss returns, what it is given, what a layer cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from first_mistakes.parts import X, Y, batches, cross_entropy, program, step


def _loss(change: Any) -> Any:
    return lambda model, batch: change(cross_entropy(model, batch))


def _backward(model: nn.Module, batch: Any) -> Any:
    value = cross_entropy(model, batch)
    value.backward()
    return value


def _two_states() -> None:
    made = program()
    made.train_step(made.train_step(made.init(), (X, Y)), (X, Y))


def _donated() -> None:
    made = ft.donated(program())
    state = made.init()
    made.train_step(state, (X, Y))
    made.train_step(state, (X, Y))


def _unscheduled() -> None:
    step(optimizer=ft.optim.SGD(lr=ft.schedules.Cosine(0.1)))


def _other_device(model: nn.Module, batch: Any) -> Any:
    return (model(batch[0]) * torch.ones(3, device="meta")).mean()


FIRST = [
    (
        lambda: step(_loss(lambda v: None)),
        "loss(model, batch) must return a scalar tensor or functrain.Loss … "
        "returned NoneType … return",
    ),
    (lambda: step(_loss(lambda v: v.item())), "loss(model … returned float … leave out .item()"),
    (lambda: step(_loss(lambda v: (v, 1))), "loss(model … returned tuple … functrain.Loss("),
    (lambda: step(_loss(lambda v: {"a": v})), "loss(model … returned dict … functrain.Loss("),
    (lambda: step(lambda m, b: m(b[0])), "the loss … has shape [16, 3] … .mean()"),
    (
        lambda: step(_loss(lambda v: v.detach())),
        "the loss does not depend on any trainable … is passed to loss(model, batch) … "
        "without .detach()",
    ),
    (lambda: step(_backward), "a second time … backward … leave out backward()"),
    (
        lambda: step(_loss(lambda v: ft.Loss(v, {"accuracy": v}))),
        "as weight … got dict … metrics={...}",
    ),
    (lambda: program().train_step((X, Y), program().init()), "TrainState … a tuple … comes first"),
    (
        lambda: step(_loss(lambda v: ft.Loss(v, accuracy=1.0))),
        "unexpected keyword argument 'accuracy' … in the loss … metrics={'accuracy': ...}",
    ),
    (_two_states, "TrainState … got a tuple … state, metrics = program.train_step("),
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
    (
        lambda: step(batch=(X, Y.float())),
        "Float … in the loss, in the step after step 0, with the batch … y.long()",
    ),
    (lambda: step(batch=(X, Y[:8])), "batch_size (16) … in the loss … the same first size"),
    (
        lambda: step(lambda m, b: F.mse_loss(m(b[0]), torch.ones(16, 2))),
        "must match the size … in the loss … compare them with the batch",
    ),
    (
        lambda: step(lambda m, b: F.cross_entropy(m(b), b[1])),
        "must be Tensor, not tuple … in 'body.0' … x, y = batch",
    ),
    (
        lambda: step(lambda m, x, y: F.cross_entropy(m(x), y)),
        "missing 1 required positional argument: 'y' … in the loss … "
        "loss(model, batch) with the whole batch",
    ),
    (
        lambda: step(batch=(X.numpy(), Y.numpy().astype(np.int64))),
        "must be Tensor, not … in 'body.0' … torch.as_tensor(x)",
    ),
    (lambda: step(_other_device), "device … in the loss … device=x.device"),
    (
        lambda: step(lambda m, b: m(b).mean(), torch.tensor([[9]]), model=nn.Embedding(4, 2)),
        "index out of range … in the model, Embedding … num_embeddings - 1",
    ),
    (
        lambda: step(lambda m, b: m(b).mean(), torch.ones(2, 8, 8, 3), model=nn.Conv2d(3, 2, 3)),
        "to have 3 channels, but got 8 … in the model, Conv2d … x.permute(0, 3, 1, 2)",
    ),
    (
        lambda: step(lambda m, b: m(b).mean(), X[:1], model=nn.BatchNorm1d(4)),
        "more than 1 value per channel … in the model, BatchNorm1d … drop_last=True",
    ),
    (
        lambda: step(batch=DataLoader(TensorDataset(X, Y), 16)),
        "in the loss … got a DataLoader … for batch in loader",
    ),
    (
        lambda: program().eval_step(program().init(), batches()),
        "in an evaluation … got a Batches … for batch in loader",
    ),
    (
        lambda: program().eval_step(program().init(), (X, Y), weights="ema"),
        'weights="ema" … keeps no average … functrain.program(..., ema=0.999)',
    ),
]
