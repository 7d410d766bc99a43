"""Steps that fail: what a loss returns, what it is given, what a layer cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from first_mistakes.parts import First, X, Y, batches, cross_entropy, program, step

_IN_STEP = "in the step after step 0, with the batch"


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
    First(lambda: step(_loss(lambda v: None)), "returned NoneType", "loss(model, batch)", "return"),
    First(
        lambda: step(_loss(lambda v: v.item())), "returned float", "loss(model", "leave out .item()"
    ),
    First(lambda: step(_loss(lambda v: (v, 1))), "returned tuple", "loss(model", "functrain.Loss("),
    First(
        lambda: step(_loss(lambda v: {"a": v})), "returned dict", "loss(model", "functrain.Loss("
    ),
    First(lambda: step(lambda m, b: m(b[0])), "has shape [16, 3]", "the loss", ".mean()"),
    First(
        lambda: step(_loss(lambda v: v.detach())),
        "does not depend on any trainable",
        "the loss",
        "without .detach()",
    ),
    First(lambda: step(_backward), "a second time", "backward", "leave out backward()"),
    First(
        lambda: step(_loss(lambda v: ft.Loss(v, {"accuracy": v}))),
        "got dict",
        "as weight",
        "metrics={...}",
    ),
    First(
        lambda: program().train_step((X, Y), program().init()),
        "a tuple",
        "TrainState",
        "comes first",
    ),
    First(
        lambda: step(_loss(lambda v: ft.Loss(v, accuracy=1.0))),  # type: ignore[call-arg]
        "unexpected keyword argument 'accuracy'",
        "in the loss",
        "metrics={'accuracy': ...}",
    ),
    First(_two_states, "got a tuple", "TrainState", "state, metrics = program.train_step("),
    First(_donated, "given to a donated step", "state.", "functrain.copy(state)"),
    First(_unscheduled, "has no steps of its own", "Cosine", "steps=N"),
    First(
        lambda: step(batch=(X, Y + 5)),
        "Target 5 is out of bounds",
        f"in the loss, {_IN_STEP} {{0: f32[16,4], 1: i64[16] from 5 to 7}}",
        "class labels are 0 to C - 1",
    ),
    First(
        lambda: step(batch=(torch.ones(16, 5), Y)),
        "shapes cannot be multiplied",
        f"in 'body.0', Linear(in_features=4, out_features=8, bias=True), {_IN_STEP}",
        "takes 4 features in the last dimension and got 5",
    ),
    First(lambda: step(batch=(X.double(), Y)), "same dtype", "in 'body.0', Linear", "x.float()"),
    First(lambda: step(batch=(X, Y.float())), "Float", f"in the loss, {_IN_STEP}", "y.long()"),
    First(lambda: step(batch=(X, Y[:8])), "batch_size (16)", "in the loss", "the same first size"),
    First(
        lambda: step(lambda m, b: F.mse_loss(m(b[0]), torch.ones(16, 2))),
        "must match the size",
        "in the loss",
        "compare them with the batch",
    ),
    First(
        lambda: step(lambda m, b: F.cross_entropy(m(b), b[1])),
        "must be Tensor, not tuple",
        "in 'body.0'",
        "x, y = batch",
    ),
    First(
        lambda: step(lambda m, x, y: F.cross_entropy(m(x), y)),
        "missing 1 required positional argument: 'y'",
        "in the loss",
        "loss(model, batch) with the whole batch",
    ),
    First(
        lambda: step(batch=(X.numpy(), Y.numpy().astype(np.int64))),
        "must be Tensor, not",
        "in 'body.0'",
        "torch.as_tensor(x)",
    ),
    First(lambda: step(_other_device), "device", "in the loss", "device=x.device"),
    First(
        lambda: step(lambda m, b: m(b).mean(), torch.tensor([[9]]), model=nn.Embedding(4, 2)),
        "index out of range",
        "in the model, Embedding",
        "num_embeddings - 1",
    ),
    First(
        lambda: step(lambda m, b: m(b).mean(), torch.ones(2, 8, 8, 3), model=nn.Conv2d(3, 2, 3)),
        "to have 3 channels, but got 8",
        "in the model, Conv2d",
        "x.permute(0, 3, 1, 2)",
    ),
    First(
        lambda: step(lambda m, b: m(b).mean(), X[:1], model=nn.BatchNorm1d(4)),
        "more than 1 value per channel",
        "in the model, BatchNorm1d",
        "drop_last=True",
    ),
    First(
        lambda: step(batch=DataLoader(TensorDataset(X, Y), 16)),
        "got a DataLoader",
        "in the loss",
        "for batch in loader",
    ),
    First(
        lambda: program().eval_step(program().init(), batches()),
        "got a Batches",
        "in an evaluation",
        "for batch in loader",
    ),
    First(
        lambda: program().eval_step(program().init(), (X, Y), weights="ema"),
        "keeps no average",
        'weights="ema"',
        "functrain.program(..., ema=0.999)",
    ),
]
