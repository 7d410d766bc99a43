"""Faults seen in earlier systems, with one regression test each.

J is jiant's engine, T a PyTorch template's trainer, R the qpipeline runner, C craft's training
package.
"""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ListenerError, NonFiniteWarning

X = torch.randn(22, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


def squared(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()


def program(loss: Any = squared, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    optimizer = options.pop("optimizer", ft.optim.SGD(lr=0.05))
    return ft.program(nn.Linear(3, 1), loss, optimizer, **options)


def batches(size: int = 4) -> ft.data.Batches:
    return ft.data.Batches((X, Y), size)


@pytest.mark.row(4)
def test_c_counted_micro_batches_as_steps() -> None:
    run = ft.fit(program(accumulate=4), batches(), until="2 epochs")
    assert run.state.counters.step == 2 * math.ceil(6 / 4)


@pytest.mark.row(5)
def test_c_dropped_or_misweighted_a_short_tail_of_micro_batches() -> None:
    made = program(accumulate=4)
    state, _ = made.train_step(made.init(), ft.MicroBatches([(X[:4], Y[:4]), (X[4:5], Y[4:5])]))
    whole = program()
    expected, _ = whole.train_step(whole.init(), (X[:5], Y[:5]))
    torch.testing.assert_close(state.params, expected.params, rtol=1e-6, atol=1e-7)


@pytest.mark.row(6)
def test_j_clipped_each_micro_batch_so_that_opposite_gradients_did_not_cancel() -> None:
    def linear(model: nn.Module, batch: Tensor) -> Tensor:
        return batch.mean() * model.weight.sum()

    made = program(linear, clip_norm=1.0, accumulate=2)
    begun = made.init()
    opposite = ft.MicroBatches([torch.tensor([10.0]), torch.tensor([-10.0])])
    state, metrics = made.train_step(begun, opposite)
    assert metrics["grad_norm"] == 0
    assert torch.equal(state.params["weight"], begun.params["weight"])


@pytest.mark.row(10)
@pytest.mark.row(26)
def test_t_and_r_selected_nan_as_the_best(tmp_path: Path) -> None:
    values = iter([math.nan, 3.0, math.nan, 2.0, -math.inf, math.nan])

    def evaluated(model: nn.Module, batch: Any) -> Tensor:
        return torch.tensor(next(values))

    made = program(evaluate=evaluated)
    options = {"eval_data": [(X, Y)], "eval_every": "1 step", "directory": tmp_path}
    run = ft.fit(made, batches(), until="6 steps", **options)
    assert run.best == {"value": 2.0, "step": 4}
    assert ft.Checkpoints(tmp_path).restore("best")[0].train.counters.step == 4


@pytest.mark.row(15)
def test_j_ignored_eps() -> None:
    states = [program(optimizer=ft.optim.RAdam(lr=0.1, eps=eps)) for eps in (1e-8, 1e-1)]
    ends = [ft.fit(each, batches(), until="9 steps").state.params["weight"] for each in states]
    assert not torch.equal(*ends)


@pytest.mark.row(21)
def test_j_gave_every_epoch_the_same_order() -> None:
    data = ft.data.Batches(torch.arange(22), 4)
    orders = [torch.cat([data[epoch, index] for index in range(6)]).tolist() for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(22))
    assert orders[0] != orders[1]


@pytest.mark.row(23)
def test_j_and_r_evaluated_at_0_or_one_step_off() -> None:
    seen: list[int] = []

    class Seen:
        def on_eval_end(self, event: Any) -> None:
            seen.append(event.state.counters.step)

    options = {"eval_data": [(X, Y)], "eval_every": "3 steps", "listeners": [Seen()]}
    ft.fit(program(), batches(), until="9 steps", **options)
    assert seen == [3, 6, 9]


@pytest.mark.row(24)
def test_t_averaged_over_batches_instead_of_samples() -> None:
    made = program()
    state = made.init()
    uneven = ft.evaluate(made, state, [(X[:21], Y[:21]), (X[21:], Y[21:])])["loss"]
    assert uneven == pytest.approx(ft.evaluate(made, state, [(X, Y)])["loss"], rel=1e-6)


@pytest.mark.row(28)
def test_c_swallowed_the_errors_of_callbacks() -> None:
    class Failing:
        def on_epoch_end(self, event: Any) -> None:
            raise KeyError("mine")

    with pytest.raises(ListenerError, match=r"Failing.on_epoch_end failed at step 6: KeyError"):
        ft.fit(program(), batches(), until="2 epochs", listeners=[Failing()])


@pytest.mark.row(29)
def test_r_called_an_interrupt_an_early_stop() -> None:
    class Interrupting:
        def on_batch_end(self, event: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    class Asking:
        def on_batch_end(self, event: Any) -> ft.Stop:
            return ft.Stop("asked for")

    def not_finite(model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).mean() * math.nan

    def ended(until: str, made: ft.Program | None = None, **options: Any) -> str:
        return ft.fit(made or program(), batches(), until=until, **options).reason

    rule = {"early_stop": ft.EarlyStop(upper=0.0), "eval_data": [(X, Y)]}
    with pytest.warns(NonFiniteWarning):
        assert ended("2 steps", program(not_finite)) == "nonfinite"
    assert ended("9 epochs", listeners=[Interrupting()]) == "interrupted"
    assert ended("9 epochs", listeners=[Asking()]) == "listener"
    assert ended("9 epochs", **rule) == "early_stop"
    assert [ended(until) for until in ("3 steps", "1 epoch", "9 samples", "0.0001 minutes")] == [
        "max_steps",
        "max_epochs",
        "max_samples",
        "max_time",
    ]
