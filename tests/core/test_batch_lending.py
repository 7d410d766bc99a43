"""A loss computes on the caller's batch only where nobody can tell it from a copy."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
LATE = 5  # a step after the first ones, which are watched


class Seen:
    """A loss that notes what it was given, and can do something to its batch at some step."""

    def __init__(self, does: Callable[[Tensor], Any] = lambda x: None, since: int = 0) -> None:
        self.does, self.since = does, since
        self.calls, self.addresses, self.containers = 0, [0], {0}

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        x = batch["x"]
        self.calls += 1
        self.addresses.append(x.data_ptr())
        self.containers.add(id(batch))
        if self.calls > self.since:
            self.does(x)
        loss: Tensor = model(x.detach()).square().mean()
        return loss


def program(loss: Any, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    return ft.program(nn.Linear(4, 1), loss, ft.optim.SGD(0.1), **options)


def run(made: ft.Program, batch: Any, steps: int = LATE) -> ft.TrainState:
    state = made.init()
    for _ in range(steps):
        state, _ = made.train_step(state, batch)
    return state


def is_lent(loss: Seen, x: Tensor) -> bool:
    return loss.addresses[-1] == x.data_ptr()


class TestLending:
    @pytest.mark.parametrize("wrap", [lambda made: made, ft.donated, ft.checked])
    def test_later_steps_compute_on_the_callers_tensors_in_new_containers(self, wrap: Any) -> None:
        loss, batch = Seen(), {"x": X.clone()}
        run(wrap(program(loss)), batch)
        assert is_lent(loss, batch["x"])
        assert id(batch) not in loss.containers
        assert batch["x"].data_ptr() not in loss.addresses[:4]

    def test_micro_batches_too(self) -> None:
        loss, parts = Seen(), [{"x": X[:4].clone()}, {"x": X[4:].clone()}]
        run(program(loss, accumulate=2), parts)
        assert loss.addresses[-2:] == [part["x"].data_ptr() for part in parts]

    @pytest.mark.parametrize(
        "x",
        [
            torch.randn(9 * 4)[1:33].view(8, 4),
            torch.randn(4, 8).T,
            torch.randn(8, 4, requires_grad=True),
            nn.Parameter(torch.randn(8, 4), requires_grad=False),
        ],
        ids=["not aligned", "not contiguous", "requires grad", "of a subclass"],
    )
    def test_other_tensors_are_copied(self, x: Tensor) -> None:
        loss = Seen()
        run(program(loss), {"x": x})
        assert not is_lent(loss, x)

    def test_tensors_of_inference_mode_are_copied(self) -> None:
        with torch.inference_mode():
            x = torch.randn(8, 4)
        run(program(lambda model, batch: model(batch["x"]).square().mean()), {"x": x})

    def test_the_bytes_are_those_of_copies(self) -> None:
        batch, made = {"x": X}, program(Seen())
        state = expected = made.init()
        for _ in range(8):
            state, found = made.train_step(state, batch)
            expected, wanted = program(Seen()).train_step(expected, batch)  # its first step
            assert ft.tree.equal(found, wanted)
        assert ft.tree.equal(state, expected)


def writes_by_data(x: Tensor) -> None:
    x.data.zero_()


def writes_by_numpy(x: Tensor) -> None:
    x.detach().numpy()[:] = 0


def writes(x: Tensor) -> None:
    x.mul_(2)


def flags(x: Tensor) -> None:
    x.requires_grad_()


WRITES = [writes, writes_by_data, writes_by_numpy, flags]


class TestWrites:
    @pytest.mark.parametrize("does", WRITES)
    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_of_a_first_step_are_to_copies_for_ever(self, does: Any, accumulate: int) -> None:
        loss, batch = Seen(does), {"x": X.clone()}
        run(program(loss, accumulate=accumulate), batch)
        assert torch.equal(batch["x"], X)
        assert not batch["x"].requires_grad

    def test_that_begin_late_are_refused(self) -> None:
        made, batch = program(Seen(writes, since=LATE - 1)), {"x": X.clone()}
        state = run(made, batch, LATE - 1)
        with pytest.raises(errors.ImpurityError, match=r"x\.clone\(\)"):
            made.train_step(state, batch)

    def test_a_late_requires_grad_is_undone(self) -> None:
        loss, batch = Seen(flags, since=LATE - 1), {"x": X.clone()}
        made = program(loss)
        state = run(made, batch, LATE - 1)
        for lent in (True, False):
            state, _ = made.train_step(state, batch)
            assert is_lent(loss, batch["x"]) == lent
            assert not batch["x"].requires_grad

    def test_are_found_by_checked_at_each_step(self) -> None:
        made, batch = ft.checked(program(Seen(writes, since=LATE - 1))), {"x": X.clone()}
        with pytest.raises(errors.ImpurityError):
            run(made, batch)


class Remembers(nn.Linear):
    """Makes its input the memory of a buffer."""

    def __init__(self) -> None:
        super().__init__(4, 1)
        self.register_buffer("last", torch.zeros(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.last.data = x.detach()
        return super().forward(x)


@attrs.frozen
class Kept:
    """A metric that holds what it was made of."""

    values: Tensor

    def merge(self, other: Kept) -> Kept:
        return Kept(torch.cat([self.values, other.values]))

    def compute(self) -> Tensor:
        return self.values[0, 0]


class TestSharing:
    def test_a_loss_that_keeps_its_batch_gets_copies(self) -> None:
        kept: list[Tensor] = []
        loss, batch = Seen(kept.append), {"x": X.clone()}
        run(program(loss), batch)
        batch["x"].zero_()
        assert all(torch.equal(each, X) for each in kept)

    def test_a_buffer_does_not_share_the_memory_of_a_batch(self) -> None:
        batch = {"x": X.clone()}
        state = run(ft.program(Remembers(), Seen(), ft.optim.SGD(0.1)), batch)
        batch["x"].zero_()
        assert torch.equal(state.buffers["last"], X)

    def test_metrics_do_not_share_the_memory_of_a_batch(self) -> None:
        seen = Seen()

        def loss(model: nn.Module, batch: Any) -> ft.Loss:
            values = {"one": batch["x"][0, 0], "kept": Kept(batch["x"])}
            return ft.Loss(seen(model, batch), weight=batch["n"], metrics=values)

        made, batch = program(loss), {"x": X.clone(), "n": torch.tensor(8.0)}
        state = run(made, batch)
        _, metrics = made.train_step(state, batch)
        assert is_lent(seen, batch["x"])
        batch["x"].zero_()
        assert metrics["one"] == metrics["kept"] == X[0, 0]

    def test_objects_are_new_and_their_tensors_lent(self) -> None:
        seen = Seen()
        batch = SimpleNamespace(x=X.clone())
        run(program(lambda model, given: seen(model, vars(given))), batch)
        assert is_lent(seen, batch.x)


@pytest.mark.parametrize("does", [lambda x: x.data.mul_(2), lambda x: x.sub_(1)])
def test_steps_whose_loss_failed_are_not_those_that_are_watched(does: Any) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        if batch["fails"]:
            raise ValueError("of the user")
        does(batch["x"])
        mean: Tensor = model(batch["x"]).square().mean()
        return mean

    given = program(loss)
    state, x = given.init(), X.clone()
    for _ in range(LATE):
        with pytest.raises(ValueError, match="of the user"):
            given.train_step(state, {"x": x, "fails": True})
    for _ in range(LATE):
        state, _ = given.train_step(state, {"x": x, "fails": False})
    assert torch.equal(x, X)
