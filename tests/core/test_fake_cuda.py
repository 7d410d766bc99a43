"""Steps on a CUDA device: none waits for it, and nothing of a state leaves it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_cuda import CUDA, fake_cuda, on_cuda, with_gradients
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

import functrain as ft
from functrain import tree

O = ft.optim  # noqa: E741  (as its classes are named)
SGD = O.SGD(lr=0.1)
OPTIMIZERS = [
    *(cls(lr=0.1) for cls in (O.AdamW, O.SGD, O.Adadelta, O.Adafactor, O.Adagrad, O.Adamax)),
    *(cls(lr=0.1) for cls in (O.LAMB, O.Lion, O.NAdam, O.RAdam, O.RMSprop)),
    *(cls(lr=0.1) for cls in (O.ScheduleFreeAdamW, O.ScheduleFreeSGD)),
    O.Adam(lr=0.1, amsgrad=True, weight_decay=0.1),
    O.SGD(lr=0.1, momentum=0.9, nesterov=True),
    O.SGD(lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.1),
    O.RMSprop(lr=0.1, momentum=0.9, centered=True),
    O.groups([("*.bias", O.SGD(lr=0.2)), ("0.*", O.Frozen()), ("3.*", O.Muon(lr=0.1)), ("*", SGD)]),
    O.AdaptiveGradClip(SGD, clipping=0.1),
    O.ClipByBlockRms(SGD, 1.0),
    O.Float32State(O.AdamW(lr=0.1)),
    O.Lookahead(SGD),
]
OPTIONS: list[dict[str, Any]] = [
    {"nonfinite": "ignore"},
    {"clip_norm": 1.0, "clip_value": 0.5},
    {"ema": ft.EMA(0.9, every=2, warmup=True)},
    {"ema": ft.SWA(start=2, every=2)},
    {"ema": 0.9, "precision": "bf16"},
    {"precision": "fp16"},
]


def loss(model: nn.Module, batch: Any) -> ft.Loss:
    logits = model(batch["x"])
    right = (logits.argmax(-1) == batch["y"]).float().mean()
    return ft.Loss(nn.functional.cross_entropy(logits, batch["y"]), 5, {"accuracy": right})


def made(**options: Any) -> ft.Program:
    given = {"optimizer": O.AdamW(lr=0.1), "nonfinite": "skip", **options}
    layers = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3)
    return ft.program(nn.Sequential(*layers), loss, **given)


def devices(value: Any) -> set[torch.device]:
    return {leaf.device for _, leaf in tree.items(value) if isinstance(leaf, Tensor)}


def batch(device: torch.device) -> dict[str, Any]:
    return {"x": torch.empty(5, 4, device=device), "y": torch.empty(5, device=device).long()}


@pytest.mark.sweep("options")
@pytest.mark.parametrize(
    "transform", [ft.donated, lambda program: program], ids=["donated", "pure"]
)
@pytest.mark.parametrize(
    "options", [*({"optimizer": one} for one in OPTIMIZERS), *OPTIONS], ids=repr
)
def test_steps_stay_on_the_device(
    options: dict[str, Any], transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = made(**options)
    state = program.init()
    program = transform(with_gradients(program))
    with fake_cuda(monkeypatch) as noted:
        state, given = on_cuda(state), batch(CUDA)
        noted.hosts.clear()
        for number in (1, 2):
            state, metrics = program.train_step(state, given)
            assert state.counters.step == number
        # The rate is a number of the host, and a metric of it.
        rates = [name for name in metrics if name.startswith("lr")]
        assert noted.hosts == ["aten.scalar_tensor.default"] * len(rates) * 2
        assert devices(state) == {CUDA}
        assert {n for n, value in metrics.items() if value.device != CUDA} == set(rates)


def test_a_step_that_may_raise_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    program = made(nonfinite="raise")
    state = program.init()
    program = with_gradients(program)
    with fake_cuda(monkeypatch), pytest.raises(DataDependentOutputException):
        program.train_step(on_cuda(state), batch(CUDA))


@pytest.mark.parametrize("weights", ["params", "ema"])
def test_evaluations_move_their_batch_and_stay_on_the_device(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = made(ema=0.9)
    state = program.init()
    with fake_cuda(monkeypatch) as noted:
        state, given = on_cuda(state), batch(torch.device("cpu"))
        noted.hosts.clear()
        metrics = program.eval_step(state, given, weights)
        assert noted.hosts == ["aten._to_copy.default"] * 2  # of the batch
        assert {name: value.device for name, value in metrics.items()} == {
            "loss": CUDA,
            "accuracy": CUDA,
        }
