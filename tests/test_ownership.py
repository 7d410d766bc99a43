"""States in ``fit``: updated in place where nobody else holds them, and else left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import DonatedStateError
from functrain.listeners import ProgressBar
from functrain.ownership import solely_held

pytestmark = pytest.mark.row(51)

DATA = [torch.randn(4, 3, generator=torch.Generator().manual_seed(i)) for i in range(6)]


def program(optimizer: Any = None) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = optimizer or ft.optim.AdamW(lr=0.1)
    return ft.program(model, lambda m, x: m(x).square().mean(), optimizer, ema=0.9)


@attrs.define
class Places:
    """Notes where the parameters are in memory; keeps nothing."""

    seen: list[int] = attrs.field(factory=list)

    def on_batch_end(self, event: Any) -> None:
        self.seen.append(event.state.params["0.weight"].data_ptr())


@attrs.define
class Keeps:
    """Keeps something of each state, and a copy of it."""

    what: Any
    kept: list[Any] = attrs.field(factory=list)
    copies: list[Any] = attrs.field(factory=list)

    def on_batch_end(self, event: Any) -> None:
        self.kept.append(self.what(event.state))
        self.copies.append(ft.copy(self.kept[-1]))


@pytest.mark.parametrize("transform", [lambda p: p, ft.donated], ids=["plain", "donated"])
def test_fit_updates_its_own_state_in_place(transform: Any, tmp_path: Path) -> None:
    places = Places()
    listeners = [ProgressBar(), places]
    ft.fit(transform(program()), DATA, until="4 epochs", directory=tmp_path, listeners=listeners)
    # Only after a save is there a step that leaves alone what may still be on its way to the disk.
    assert len(set(places.seen[:6])) == 1
    assert len(set(places.seen)) <= 5


@pytest.mark.parametrize(
    "what",
    [
        lambda state: state,
        lambda state: state.params,
        lambda state: state.params["0.weight"],
        lambda state: state.optimizer["exp_avg"],
        lambda state: state.ema["params"]["0.bias"],
        lambda state: state.buffers["1.running_mean"],
    ],
)
def test_what_a_listener_keeps_stays_as_it_was(what: Any) -> None:
    keeps = Keeps(what)
    run = ft.fit(program(), DATA, until="2 epochs", listeners=[keeps])
    assert tree.diff(keeps.kept, keeps.copies) == []
    assert tree.diff(run.state, ft.fit(program(), DATA, until="2 epochs").state) == []


def test_the_state_that_fit_was_given_stays_as_it_was() -> None:
    made = program()
    state = made.init(3)
    before = ft.copy(state)
    ft.fit(made, DATA, until="1 epoch", state=state)
    ft.fit(ft.donated(made), DATA, until="1 epoch", state=state)
    assert tree.diff(before, state) == []


def test_a_reference_anywhere_counts() -> None:
    made = program()

    @attrs.define
    class Loop:
        state: Any

    loop = Loop(made.init())
    assert solely_held(loop, "state", made)
    for of in (
        lambda: loop.state,
        lambda: loop.state.optimizer,
        lambda: loop.state.optimizer["exp_avg"],
        lambda: loop.state.optimizer["step"],
        lambda: loop.state.ema["params"]["0.weight"],
    ):
        kept = of()
        assert not solely_held(loop, "state", made)
        del kept
        assert solely_held(loop, "state", made)


def test_frozen_parameters_may_be_held_by_anyone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    made = ft.program(
        model, lambda m, x: m(x).square().mean(), ft.optim.SGD(0.1), trainable=["1.*"]
    )
    first, places = made.init(), Places()
    ft.fit(made, DATA, until="1 epoch", state=first, listeners=[places])
    keeps = Keeps(lambda state: state.params["1.weight"].data_ptr())
    ft.fit(made, DATA, until="1 epoch", state=first, listeners=[keeps])
    assert len(set(keeps.kept)) == 1


def test_a_step_that_fails_while_it_writes_leaves_no_state_behind(tmp_path: Path) -> None:
    @attrs.frozen
    class Failing(ft.optim.SGD):
        def kernel(self, grads: Any, slots: Any, params: Any, lr: Any, scalars: Any) -> None:
            super().kernel(grads, slots, params, lr, scalars)
            if scalars["step"] > 3:
                raise MemoryError("while writing")

    made = program(Failing(0.1))
    with pytest.raises(MemoryError) as caught:
        ft.fit(made, DATA, until="2 epochs", directory=tmp_path, save_every="2 steps")
    assert any("the newest checkpoint stands" in note for note in caught.value.__notes__)
    assert ft.Checkpoints(tmp_path).steps() == [2]
    donating, state = ft.donated(made), made.init()
    for _ in range(3):
        state, _ = donating.train_step(state, DATA[0])
    with pytest.raises(MemoryError):
        donating.train_step(state, DATA[0])
    with pytest.raises(DonatedStateError):
        state.params  # noqa: B018


def test_a_metric_that_is_a_parameter_has_the_value_of_its_step() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale).square().mean()

    def loss(model: Any, x: Tensor) -> ft.Loss:
        return ft.Loss(model(x), metrics={"scale": model.scale})

    donating = ft.donated(ft.program(Scaled(), loss, ft.optim.SGD(0.1)))
    _, metrics = donating.train_step(donating.init(), DATA[0])
    assert metrics["scale"] == 1
