"""A forward finds in the attributes of its module only what the module was made with."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import CaptureError, ModelError, ModuleStateWarning

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """A layer whose output is scaled by what is computed from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.scale = nn.Linear(3, 3), nn.Parameter(torch.ones(3))

    def factor(self) -> Any:
        return 2 * self.scale.detach()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.factor() * self.scale


class Absent(Scaled):
    def factor(self) -> Any:
        if not hasattr(self, "table"):
            self.table = super().factor()
        return self.table


class Empty(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.length, self.table = -1, None

    def factor(self) -> Any:
        if self.length < 3:
            self.length, self.table = 3, super().factor()
        return self.table


class Differentiable(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def factor(self) -> Any:
        if self.table is None:
            self.table = 2 * self.scale
        return self.table


class Property(Scaled):
    @functools.cached_property
    def table(self) -> Tensor:
        return super().factor()

    def factor(self) -> Any:
        return self.table


class LruCache(Scaled):
    @functools.lru_cache  # noqa: B019
    def table(self, times: int) -> Tensor:
        return times * self.scale.detach()

    def factor(self) -> Any:
        return self.table(2)


class UnboundedCache(LruCache):
    @functools.cache  # noqa: B019
    def table(self, times: int) -> Any:
        return [times * self.scale.detach()]

    def factor(self) -> Any:
        return self.table(2)[0]


class ByLength(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[int, Tensor] = {}

    def factor(self) -> Any:
        return self.tables.setdefault(3, super().factor())


class Number(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.table: float | None = None

    def factor(self) -> Any:
        if self.table is None:
            self.table = float(super().factor().sum())
        return self.table


class Buffer(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", None, persistent=False)

    def factor(self) -> Any:
        if self.table is None:
            self.table = super().factor()
        return self.table


class NewBuffer(Scaled):
    def factor(self) -> Any:
        if "table" not in self._buffers:
            self.register_buffer("table", super().factor(), persistent=False)
        return self.table


class InEvaluation(Scaled):
    """Merged weights, which a module keeps until it trains on."""

    def __init__(self) -> None:
        super().__init__()
        self.merged: Tensor | None = None

    def train(self, mode: bool = True) -> InEvaluation:
        super().train(mode)
        self.merged = None
        return self

    def factor(self) -> Any:
        if self.training:
            return super().factor()
        if self.merged is None:
            self.merged = super().factor()
        return self.merged


CACHES = [
    Absent,
    Empty,
    Differentiable,
    Property,
    LruCache,
    UnboundedCache,
    ByLength,
    Number,
    Buffer,
    NewBuffer,
]


def mean_square(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def program(model: nn.Module, wrap: Callable[[ft.Program], ft.Program] | None = None) -> ft.Program:
    made = ft.program(model, mean_square, ft.optim.SGD(0.05))
    return made if wrap is None else wrap(made)


def graph(made: ft.Program) -> ft.Program:
    return ft.compiled(made, backend="eager")


@pytest.mark.filterwarnings("ignore::functrain.errors.ModuleStateWarning")
@pytest.mark.parametrize("wrap", [None, ft.donated, graph])
@pytest.mark.parametrize("kind", [*CACHES, InEvaluation])
def test_a_cache_is_one_of_the_present_state(kind: type[Scaled], wrap: Any) -> None:
    if kind is Number and wrap is graph:
        pytest.skip("a graph reads no numbers")

    def losses(fresh: bool) -> list[float]:
        made = program(kind(), wrap)
        state, found = made.init(), []
        for _ in range(3):
            made = program(kind(), wrap) if fresh else made
            found.append(made.eval_step(state, X)["loss"].item())
            state, metrics = made.train_step(state, X)
            found.append(metrics["loss"].item())
        return found

    assert losses(fresh=False) == losses(fresh=True)


def test_steps_between_others_are_the_same() -> None:
    made = program(InEvaluation())
    first = made.init()
    before = made.eval_step(first, X)
    later, _ = made.train_step(first, X)
    made.eval_step(later, X)
    assert ft.tree.equal(made.eval_step(first, X), before)


class Hidden(Scaled):
    """A state of the module's own, which it takes from one batch to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x if self.hidden is None else x + self.hidden)
        self.hidden = hidden.detach()
        return hidden * self.scale


class TestWarning:
    def test_names_what_a_later_step_might_miss_once(self) -> None:
        made = program(nn.Sequential(Hidden()))
        with pytest.warns(ModuleStateWarning, match=r"attributes \['0.hidden'\]"):
            state, _ = made.train_step(made.init(), X)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.train_step(state, X)

    @pytest.mark.parametrize("wrap", [None, ft.donated, graph])
    @pytest.mark.parametrize("begin", [None, torch.zeros(4, 3)])
    def test_names_what_is_detached_where_it_is_read(self, begin: Any, wrap: Any) -> None:
        class Late(Scaled):
            def __init__(self) -> None:
                super().__init__()
                self.hidden: Tensor | None = begin

            def forward(self, x: Tensor) -> Tensor:
                before = 0 if self.hidden is None else self.hidden.detach()
                self.hidden = self.linear(x + before) * self.scale
                return self.hidden

        made = program(Late(), wrap)
        if begin is not None and wrap is graph:
            with pytest.raises(CaptureError, match="hidden"):
                made.train_step(made.init(), X)
            return
        with pytest.warns(ModuleStateWarning, match=r"\['hidden'\]"):
            made.train_step(made.init(), X)

    def test_names_a_number_that_was_put_back_with_a_table(self) -> None:
        made = program(Empty())
        with pytest.warns(ModuleStateWarning, match=r"\['length'\]"):
            made.train_step(made.init(), X)

    def test_is_not_given_for_outputs_and_constants(self) -> None:
        class Shown(Scaled):
            def forward(self, x: Tensor) -> Tensor:
                self.ones = torch.ones(len(x), 1)
                self.shown = super().forward(x) * self.ones
                return self.shown

        made = program(Shown())
        state = made.init()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for batch in (X, X[:2], X):
                state, _ = made.train_step(state, batch)
                made.eval_step(state, batch)
        assert not hasattr(made.fixed.model.module, "shown")


def test_the_loss_finds_what_the_forward_left() -> None:
    class Shown(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            self.shown = super().forward(x)
            return self.shown

    def loss(model: Any, x: Tensor) -> Tensor:
        model(x)
        return model.shown.square().mean()

    shown = ft.program(Shown(), loss, ft.optim.SGD(0.05))
    plain = program(Scaled())
    found, _ = shown.train_step(shown.init(), X)
    expected, _ = plain.train_step(plain.init(), X)
    assert ft.tree.equal(found.params, expected.params)


def test_a_cached_method_begins_empty() -> None:
    """Nothing but the cache knows whether its entries depend on a state."""
    model = LruCache()
    made = program(model)
    state = made.init()
    expected = made.eval_step(state, X)
    model.table(2)
    model.scale.data.fill_(3)
    assert ft.tree.equal(dict(made.eval_step(state, X)), dict(expected))
    assert model.table.cache_info().currsize == 0


def test_a_counter_of_the_modules_own_goes_on() -> None:
    class Counting(Scaled):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.seen.append(self.calls)
            return super().forward(x)

    made = program(Counting())
    state, _ = made.train_step(made.init(), X)
    made.train_step(state, X)
    assert made.fixed.model.module.seen == [1, 2]


def test_a_cache_that_is_filled_late_undoes_the_attributes_of_one_forward() -> None:
    class Counting(InEvaluation):
        calls = 0

        def factor(self) -> Any:
            self.calls += 1
            return super().factor()

    model = Counting()
    made = program(model)
    state = made.init()
    for _ in range(5):
        state, _ = made.train_step(state, X)
    made.eval_step(state, X)
    assert (model.calls, model.merged) == (5, None)


def test_what_a_first_forward_sets_up_stays() -> None:
    class Hooked(Scaled):
        """Adds a hook at its first call, and remembers that it did, as transformers does."""

        def forward(self, x: Tensor) -> Tensor:
            if not getattr(self, "is_hooked", False):
                self.linear.register_forward_hook(lambda *given: self.outputs.append(given[-1]))
                self.is_hooked = True
            self.outputs: list[Tensor] = []
            result = super().forward(x)
            assert len(self.outputs) == 1
            return result

    made = program(Hooked())
    state, _ = made.train_step(made.init(), X)
    made.train_step(state, X)
    assert made.fixed.model.module.is_hooked
    assert not hasattr(made.fixed.model.module, "outputs")


def test_parameters_made_in_a_forward_are_refused() -> None:
    class Late(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.last: nn.Module | None = None

        def forward(self, x: Tensor) -> Tensor:
            if self.last is None:
                self.last = nn.Linear(3, 3)
            return self.last(super().forward(x))

    made = program(nn.Sequential(Late()))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"registered \['0.last'\]"):
            made.train_step(made.init(), X)
