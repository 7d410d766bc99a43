"""Mistakes in making a program and a step."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import errors
from mistakes.mistake import X, fit, linear, program, squared, step


class Reentrant(nn.Linear):
    def forward(self, x: torch.Tensor) -> Any:
        return checkpoint(super().forward, x.requires_grad_(), use_reentrant=True)


CRITERION = nn.Linear(1, 3)


class Graph:
    def __init__(self) -> None:
        self.nodes, self.edges = X, torch.zeros(2, 5, dtype=torch.int64)


class Local(threading.local):
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x


def unready_model() -> None:
    program(model=nn.LazyLinear(1))


def changing_factory() -> None:
    sizes = iter([(4, 1), (4, 1, 1)])
    made = program(model=lambda: nn.ModuleList([nn.Linear(size, 1) for size in next(sizes)]))
    made.init()


def forgotten() -> None:
    def one(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        return {"one": states["one"]}, {}

    made = ft.joint({"one": program(), "other": program()}, step=one)
    made.train_step(made.init(), X)


def sparse() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    step(program(model=table), torch.tensor([0, 1]))


def consumed() -> None:
    made = ft.donated(program())
    state = made.init()
    made.train_step(state, X)
    state.params  # noqa: B018


def assigned() -> None:
    program().init().rng = 3  # type: ignore[misc,assignment]


class Recurrent(nn.Linear):
    hidden: torch.Tensor | float = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = super().forward(x + self.hidden).detach()
        return super().forward(x + self.hidden)


def infinite(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return squared(model, batch) / 0


def seeded_by_the_system(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    torch.seed()
    return squared(model, batch) * torch.rand(())


def unknown_weights() -> None:
    made = program()
    made.eval_step(made.init(), X, weights="averaged")


def adam(**options: Any) -> ft.Program:
    return program(optimizer=ft.optim.Adam(lr=0.1), **options)


MISTAKES = {
    errors.CallError: [
        (
            lambda: program(clipnorm=1.0),
            "program() takes no argument 'clipnorm' … write clip_norm=1.0",
        ),
    ],
    errors.UnknownNameError: [
        (
            lambda: program().init().params["weigth"],
            "this mapping of the state has no 'weigth' … did you mean 'weight' … "
            "it has 'weight', 'bias'",
        ),
    ],
    errors.ConfigurationError: [
        (
            lambda: program(optimizer=torch.optim.AdamW),
            "got <class 'torch.optim.adamw.AdamW'> … functrain.optim.AdamW(lr=1e-3) … "
            "from_torch(torch.optim.X, lr=1e-3)",
        ),
        (lambda: program(nonfinite="stop"), "nonfinite … 'raise', 'skip' or 'ignore' … got 'stop'"),
        (
            lambda: program(ema=True),
            "ema … a decay such as 0.999, functrain.EMA(...), functrain.SWA(...) or None … "
            "got True",
        ),
        (
            lambda: step(
                program(lambda model, batch: squared(model, batch[0]), accumulate=2), [(X,)] * 3
            ),
            "3 micro-batches … accumulate=2 … functrain.MicroBatches([...])",
        ),
        (unknown_weights, '"params" or "ema" … got \'averaged\''),
    ],
    errors.StepResultError: [
        (forgotten, "step must return a state of each program … no state of 'other'"),
    ],
    errors.ModelError: [
        (
            lambda: program(model="resnet"),
            "nn.Module or a callable that returns one … got 'resnet'",
        ),
        (unready_model, "'weight' has no shape yet … Run one forward pass"),
        (changing_factory, "2.bias … 2.weight … build the same structure each time"),
        (
            lambda: step(program(model=Reentrant(4, 1)), X.clone()),
            "use_reentrant=True … Pass use_reentrant=False",
        ),
    ],
    errors.ParameterMismatchError: [
        (
            lambda: program().init(params={"weigth": torch.ones(1, 4), "bias": torch.ones(2)}),
            "'weigth' … did you mean 'weight' … has shape [2], expected [1]",
        ),
        (
            lambda: fit(state=program(model=lambda: nn.Linear(4, 2)).init()),
            "the state is of another model … "
            "begin with one that the program made, program.init() … "
            "'weight' has shape [2, 4], expected [1, 4]",
        ),
        (
            lambda: fit(program=adam(), state=adam(trainable=["bias"]).init()),
            "trains other parameters … program.init(params={**state.params, **state.buffers}) … "
            "missing 'optimizer.exp_avg.weight'",
        ),
    ],
    errors.LossError: [
        (
            lambda: step(
                program(lambda model, batch: ft.Loss(squared(model, batch), metrics={"lr": 1.0}))
            ),
            "'lr' … Give yours another name",
        ),
    ],
    errors.UnsupportedError: [
        (
            lambda: program().init().params.update(weight=X),
            "its mappings are read-only … "
            "attrs.evolve(state, params={**state.params, path: tensor})",
        ),
        (
            lambda: program().eval_step(step(program()), X),
            "got a tuple … state, metrics = program.train_step(state, batch)",
        ),
        (
            lambda: step(
                program(lambda model, batch: squared(model, batch["x"]), accumulate=2),
                {"x": X, "weights": X[:3]},
            ),
            "batch['x'] has 8 … batch['weights'] has 3 … functrain.MicroBatches([...])",
        ),
        (
            lambda: step(
                program(lambda model, batch: squared(model, X), accumulate=2),
                torch.nn.utils.rnn.pack_sequence([X, X]),
            ),
            "PackedSequence … MicroBatches",
        ),
        (
            lambda: step(program(lambda model, batch: squared(model, batch.x)), Local(X)),
            "the Local in this batch … cannot be copied … register_pytree_node … dict of tensors",
        ),
        (sparse, "'weight' … torch.sparse_coo … sparse=False"),
    ],
    errors.RandomnessError: [
        (
            lambda: step(program(seeded_by_the_system)),
            "torch.seed() … take int(torch.randint(2**31, ()))",
        ),
    ],
    errors.BatchSizeError: [
        (
            lambda: ft.evaluate(
                program(lambda model, graph: squared(model, graph.nodes)),
                program().init(),
                [Graph(), Graph()],
            ),
            "how many samples Graph has … functrain.Loss(value, weight=n) … "
            "@functrain.data.size.register(Graph)",
        ),
    ],
    errors.NonFiniteError: [
        (
            lambda: step(program(infinite)),
            "step 0 … loss is inf … weight … Lower the learning rate … clip_norm=1.0 … "
            'nonfinite="skip"',
        ),
    ],
    errors.ModuleStateWarning: [
        (
            lambda: fit(program=program(model=Recurrent(4, 4))),
            "in the attributes ['hidden'] … register a buffer",
        ),
    ],
    errors.UntrainedParameterWarning: [
        (
            lambda: step(program(loss=lambda model, x: CRITERION(model(x)).square().mean())),
            "depends on 2 trainable parameters … [3, 1], [3] … make them a part of the model … "
            "module.requires_grad_(False)",
        ),
    ],
    errors.AnomalyWarning: [
        (
            lambda: step(program(infinite, nonfinite="skip", detect_anomaly=True)),
            "step 0: the loss is inf … the first NaN is from … "
            "an infinity from the backward pass of div … programs.py",
        ),
    ],
    errors.DonatedStateError: [
        (
            consumed,
            "state.params was read … Keep the state that the step returned … functrain.copy(state)",
        ),
    ],
    errors.StateAssignmentError: [
        (assigned, "state.rng cannot be assigned to … attrs.evolve(state, rng=...)"),
    ],
    errors.EmptyBatchWarning: [
        (
            lambda: step(program(model=linear), X[:0]),
            "step 0 … the batch has no samples … skipped … state.counters.empty",
        ),
    ],
}
