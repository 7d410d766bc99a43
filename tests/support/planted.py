"""Small programs and parts that are impure, incomplete or do not resume, one fault each.

Functions that fresh processes import are here too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import functrain as ft
from functrain.schedules import Schedule
from functrain.testing import (
    Cut,
    check_complete,
    check_listener,
    check_loss,
    check_optimizer,
    check_pure,
    check_resumes,
    check_schedule,
)

ONES = torch.ones(4, 2)
SEEN: list[int] = []
COUNT = 0
MOMENT = torch.zeros(3)
OWN = torch.Generator().manual_seed(0)
OUTPUT = torch.zeros(2)


def square(model: nn.Module, batch: Any) -> Tensor:
    return model(batch).square().mean()


def linear(loss: Any = square, model: nn.Module | None = None, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(model or nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), **options)


# -- losses ------------------------------------------------------------------------------------


def writes_to_its_batch(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch.mul_(2)).square().mean()


def pops_from_its_batch(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(batch.pop("x")).square().mean()


def calls_backward(model: nn.Module, batch: Tensor) -> Tensor:
    model(batch).mean().backward()
    return model(batch).square().mean()


def draws_from_its_own_generator(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean() * torch.rand((), generator=OWN)


def draws_from_a_new_random(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean() * random.Random().random()


def reads_the_clock(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean() * (1.0 + time.perf_counter() % 1)


def counts_in_a_list(model: nn.Module, batch: Tensor) -> Tensor:
    SEEN.append(1)
    return model(batch).square().mean() * len(SEEN)


def counts_in_a_global(model: nn.Module, batch: Tensor) -> Tensor:
    global COUNT
    COUNT += 1
    return model(batch).square().mean() * COUNT


def counts_in_a_default(model: nn.Module, batch: Tensor, calls: list[int] = []) -> Tensor:  # noqa: B006
    calls.append(1)
    return model(batch).square().mean() * len(calls)


def counts_in_a_closure() -> Callable[[nn.Module, Tensor], Tensor]:
    kept = {"calls": 0}

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        kept["calls"] += 1
        return model(batch).square().mean() * kept["calls"]

    return loss


def adds_up_a_set(model: nn.Module, batch: Tensor) -> Tensor:
    total = model(batch).square().mean()
    for word in {"alpha", "beta", "gamma", "delta", "epsilon"}:
        total = total * 1.7 + len(word) * model(batch).mean()
    return total


class Counting(nn.Linear):
    """A counter in an attribute, where a buffer should be."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


# -- steps -------------------------------------------------------------------------------------


def like_batch_norm(state: Any, batch: Tensor) -> Any:
    """Write to the buffer of the old state, invisibly to autograd, and return it."""
    state["buffers"]["mean"].mul_(0.9).add_(0.1 * batch.mean())
    return {"w": state["w"] - 1, "buffers": state["buffers"]}, {}


def returns_a_view_of_its_input(state: Any, batch: Tensor) -> Any:
    return {"w": state["w"] - 1, "last": batch[1:]}, {}


def reports_its_weights(state: Any, batch: Tensor) -> Any:
    new = {"w": state["w"] - 1}
    return new, {"first": new["w"][0]}


def reuses_its_output(state: Any, batch: Tensor) -> Any:
    SEEN.append(1)
    OUTPUT.copy_(state["w"] - len(SEEN) * batch.mean())
    return {"w": OUTPUT}, {}


def leaks_randomness(state: Any, batch: Tensor) -> Any:
    return {"w": state["w"] + torch.rand(2)}, {}


def sets_the_default_dtype(state: Any, batch: Tensor) -> Any:
    torch.set_default_dtype(torch.float64)
    return {"w": state["w"] - 1}, {}


def turns_gradients_off(state: Any, batch: Tensor) -> Any:
    torch.set_grad_enabled(False)
    return {"w": state["w"] - 1}, {}


STATE = {"w": torch.zeros(2), "buffers": {"mean": torch.zeros(())}}


def of_step(step: Any) -> Callable[[], object]:
    return lambda: check_pure(step, ft.copy(STATE), ONES.clone())


# -- optimizers --------------------------------------------------------------------------------


class Descent(ft.optim.Optimizer):
    """Plain descent; each faulty optimizer overrides one method."""

    lr = 0.1

    def init(self, params: Any) -> Any:
        return {"step": torch.zeros(())}

    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        new = {path: param - lr * grads[path] for path, param in params.items()}
        return new, {"step": state["step"] + 1}

    def update_(self, grads: Any, state: Any, params: Any, lr: Any) -> None:
        new, after = self.update(grads, state, params, lr)
        for path, param in params.items():
            param.copy_(new[path])
        state["step"].copy_(after["step"])


class ReturnsItsInput(Descent):
    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        for path, param in params.items():
            param.sub_(lr * grads[path])
        return params, state


class KeepsTheMomentInAGlobal(Descent):
    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        MOMENT.mul_(0.9).add_(grads["w"])
        return {"w": params["w"] - lr * MOMENT}, state


class CountsInItself(Descent):
    def __init__(self) -> None:
        self.count = 0

    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        self.count += 1
        return super().update(grads, state, params, lr)


class HasAnotherKernel(Descent):
    def update_(self, grads: Any, state: Any, params: Any, lr: Any) -> None:
        super().update_(grads, state, params, 2 * lr)


class ScalesTheGradients(Descent):
    def update_(self, grads: Any, state: Any, params: Any, lr: Any) -> None:
        for path, grad in grads.items():
            params[path].sub_(grad.mul_(lr))


class RemembersTheNumberOfUpdates(Descent):
    """Two calls in a row agree, but not two calls from an earlier state."""

    def update(self, grads: Any, state: Any, params: Any, lr: Any) -> Any:
        largest = max([*SEEN, int(state["step"])])
        SEEN[:] = [largest]
        new, after = super().update(grads, state, params, lr)
        return {path: value * (1 + largest) for path, value in new.items()}, after


def of_optimizer(optimizer: Any) -> Callable[[], object]:
    return lambda: check_optimizer(optimizer(), {"w": torch.ones(3)})


# -- schedules and listeners -------------------------------------------------------------------


class Caching(Schedule):
    def __init__(self) -> None:
        self.last = 1.0

    def lr(self, state: Any, step: int) -> float:
        self.last *= 0.9
        return self.last


class WritesToItsState(Schedule):
    observes = "step"

    def init(self) -> Any:
        return {"seen": []}

    def lr(self, state: Any, step: int) -> float:
        return 0.1

    def observe(self, state: Any, metric: float | None) -> Any:
        state["seen"].append(metric)
        return state


class Decaying:
    def on_batch_end(self, event: Any) -> None:
        for param in event.state.params.values():
            param.mul_(0.5)


class Drawing:
    def on_epoch_begin(self, event: Any) -> None:
        torch.rand(1)


class Scaling:
    def on_batch_begin(self, event: Any) -> None:
        event.batch["x"] = event.batch["x"] * 2


def of_listener(listener: Any) -> Callable[[], object]:
    return lambda: check_listener(
        listener, linear(lambda model, batch: square(model, batch["x"])), [{"x": ONES.clone()}]
    )


# -- runs --------------------------------------------------------------------------------------


class Forgetful:
    """A loader that draws from a generator that is not saved."""

    def __init__(self) -> None:
        self.order = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        for _ in range(3):
            yield torch.randn(4, 2, generator=self.order)


class CountsSteps:
    """A listener that adds a metric it does not save."""

    def __init__(self) -> None:
        self.seen = 0

    def on_batch_end(self, event: Any) -> dict[str, float]:
        self.seen += 1
        return {"seen": self.seen}


def clean() -> dict[str, Any]:
    """A run with everything that must resume: order, dropout, EMA, early stopping."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    return {
        "program": ft.program(model, square, ft.optim.AdamW(lr=0.01), ema=0.9),
        "data": ft.data.Batches(data, 4),
        "eval_data": [data[:8]],
        "eval_every": "3 steps",
        "save_every": "2 steps",
        "early_stop": ft.EarlyStop("loss", patience=50),
    }


def counting_run() -> dict[str, Any]:
    return {**clean(), "program": linear(model=Counting(2, 1))}


def hashing() -> ft.Program:
    return linear(adds_up_a_set)


def of_loss(loss: Any, batch: Any = ONES, model: Any = nn.Linear) -> Callable[[], object]:
    return lambda: check_loss(loss, model(2, 1), ft.copy(batch))


def complete(loss: Any, model: nn.Module | None = None) -> Callable[[], object]:
    return lambda: check_complete(linear(loss, model), batch=ONES)


def resumes(arguments: Any, cut: int | Cut = 4) -> Callable[[], object]:
    return lambda: check_resumes(arguments, steps=8, cuts=[cut])


# Checks that find a fault each, and a fact that their messages say.
TABLE = [
    (of_loss(writes_to_its_batch), r"batch was changed: 8 of 8 elements, first at \[0, 0\]"),
    (of_loss(pops_from_its_batch, {"x": ONES}), r"batch\['x'\] was changed: f32\[4,2\] is gone"),
    (of_loss(calls_backward), r"module.weight.grad was changed"),
    (of_loss(square, model=Counting), "module.calls was changed: 1 is new"),
    (of_loss(draws_from_its_own_generator), "loss differs between two calls"),
    (of_loss(draws_from_a_new_random), "loss differs between two calls"),
    (of_loss(reads_the_clock), "loss differs between two calls"),
    (of_step(like_batch_norm), r"state\['buffers'\]\['mean'\] was changed"),
    (of_step(returns_a_view_of_its_input), r"new_state\['last'\] shares memory with batch"),
    (of_step(reports_its_weights), r"metrics\['first'\] shares memory with new_state\['w'\]"),
    (of_step(reuses_its_output), r"new_state\['w'\] was changed by the next call"),
    (of_step(leaks_randomness), "torch's global generator was advanced"),
    (of_step(sets_the_default_dtype), "torch's default dtype was changed"),
    (of_step(turns_gradients_off), "torch's grad mode was changed from True to False"),
    (of_optimizer(ReturnsItsInput), r"params\['w'\] was changed: 3 of 3 elements"),
    (of_optimizer(KeepsTheMomentInAGlobal), r"new_params\['w'\] differs between two calls"),
    (of_optimizer(CountsInItself), "optimizer.count was changed: 0 became 1"),
    (of_optimizer(HasAnotherKernel), r"params\['w'\] is another than by update"),
    (of_optimizer(ScalesTheGradients), r"grads\['w'\] was changed: 3 of 3 elements"),
    (of_optimizer(RemembersTheNumberOfUpdates), "Something is remembered outside the state"),
    (lambda: check_schedule(Caching(), 9), "lr at step 8 was .* when asked again"),
    (
        lambda: check_schedule(WritesToItsState(), 9),
        r"state\['seen'\]\[\d+\] was changed by observe",
    ),
    (of_listener(Decaying()), r"event.state.params\['weight'\] was changed"),
    (of_listener(Drawing()), "Drawing.on_epoch_begin is not pure"),
    (of_listener(Scaling()), r"event.batch\['x'\] was changed: 8 of 8 elements"),
    (complete(square, Counting(2, 1)), "a step changed module.calls: 2 is new"),
    (complete(counts_in_a_list), r"a step changed planted.SEEN\[0\]: 1 is new"),
    (complete(counts_in_a_global), r"a step changed planted.COUNT: \d+ became \d+"),
    (complete(counts_in_a_default), r"counts_in_a_default: calls\[\d\]: 1 is new"),
    (complete(counts_in_a_closure()), r"a step changed .*kept\['calls'\]: 0 became 2"),
    (complete(draws_from_its_own_generator), "a step changed planted.OWN: it was advanced"),
    (complete(reads_the_clock), "Look for counters, clocks"),
    (complete(draws_from_a_new_random), "when it is repeated"),
    (resumes((linear(), Forgetful())), "the first step that differs is 5: loss"),
    (
        lambda: check_resumes(counting_run, steps=8, cuts=[Cut(5, "error")]),
        "the first step that differs is 6: loss",
    ),
    (
        resumes({"program": linear(), "data": [ONES], "listeners": [CountsSteps()]}),
        "the first step that differs is 5: seen: 5 straight, 1 resumed",
    ),
]
