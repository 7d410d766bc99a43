"""A state that is none of the program: what the error says, and the remedy that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ParameterMismatchError, ScheduleStateError, UnsupportedError
from functrain.schedules import Constant, Plateau, WarmupCosine

X = torch.linspace(-1, 1, 24).reshape(6, 4)


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def program(width: int = 3, lr: Any = 0.1, **options: Any) -> ft.Program:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))

    return ft.program(model, loss, ft.optim.AdamW(lr=lr), **options)


def with_params(state: Any, **values: Any) -> Any:
    return attrs.evolve(state, params={**state.params, **values})


STATE = program().init()
WIDER = program(width=5).init()
EDITED: dict[str, tuple[Callable[[], Any], str]] = {
    "shape": (
        lambda: with_params(STATE, **{"1.bias": torch.zeros(7)}),
        r"'1\.bias' has shape \[7\], expected \[2\]",
    ),
    "dtype": (
        lambda: with_params(STATE, **{"0.weight": STATE.params["0.weight"].double()}),
        r"'0\.weight' has the dtype torch\.float64, expected torch\.float32",
    ),
    "None": (
        lambda: with_params(STATE, **{"1.bias": None}),
        r"'1\.bias' is a NoneType, expected a tensor",
    ),
    "list": (
        lambda: attrs.evolve(STATE, params=list(STATE.params.values())),
        "params are a list, expected a dict of tensors by path",
    ),
    "moments": (
        lambda: attrs.evolve(STATE, optimizer=WIDER.optimizer),
        r"'optimizer\.exp_avg\.0\.weight' has shape \[5, 4\], expected \[3, 4\]",
    ),
    "count": (
        lambda: attrs.evolve(STATE, optimizer={**STATE.optimizer, "step": 5}),
        r"'optimizer\.step' is a int, expected a tensor",
    ),
}


@pytest.mark.parametrize("name", EDITED)
def test_an_edited_state_is_named_in_place_of_the_error_of_torch(name: str) -> None:
    edit, said = EDITED[name]
    with pytest.raises(ParameterMismatchError, match=said):
        program().train_step(edit(), X)


def as_it_is(state: Any) -> Any:
    return state


@pytest.mark.parametrize("transform", [as_it_is, ft.donated], ids=["plain", "donated"])
def test_a_state_of_another_width_is_refused_though_its_layers_would_compute(
    transform: Any,
) -> None:
    made = transform(program())
    state, _ = made.train_step(made.init(), X)  # which is not checked again, and another one is
    for use in (made.train_step, made.eval_step):
        with pytest.raises(ParameterMismatchError, match=r"'0\.weight' has shape \[5, 4\]"):
            use(WIDER, X)
    for edited in ({**WIDER.params, "more": torch.ones(1)}, {"0.weight": WIDER.params["0.weight"]}):
        with pytest.raises(ParameterMismatchError):
            made.train_step(attrs.evolve(WIDER, params=edited), X)
    later, _ = made.train_step(state, X)
    assert later.counters.step == 2


def test_a_batch_that_does_not_fit_is_no_fault_of_the_state() -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        program().train_step(STATE, X.double())


def test_a_step_in_inference_mode_is_refused_and_a_state_made_there_is_not() -> None:
    made = program()
    expected, _ = made.train_step(made.init(), X)
    with torch.inference_mode():
        state = made.init()
        with pytest.raises(UnsupportedError, match=r"torch\.no_grad\(\) may stay"):
            made.train_step(state, X)
    assert ft.tree.equal(made.train_step(state, X)[0], expected)
    assert ft.tree.equal(ft.donated(made).train_step(state, X)[0], expected)


def test_a_state_without_values_is_refused() -> None:
    with torch.device("meta"):
        state = program().init()
    with pytest.raises(UnsupportedError, match='on the device "meta", which has no values'):
        program().train_step(state, X)


class TestAnotherSchedule:
    @pytest.mark.parametrize("lr", [WarmupCosine(0.1, warmup_steps=2, steps=9), Plateau(0.1)])
    def test_is_refused_where_the_state_has_nothing_of_it(self, lr: Any) -> None:
        state, _ = program().train_step(STATE, X)
        changed = program(lr=lr)
        for begin in (
            lambda: changed.train_step(state, X),
            lambda: ft.fit(changed, [X], state=state, until="3 steps", eval_data=[X]),
        ):
            with pytest.raises(ScheduleStateError, match=r"scheduler=program\.init") as refused:
                begin()
            assert type(lr).__name__ in str(refused.value)
        begun = attrs.evolve(state, scheduler=changed.init().scheduler)
        after, metrics = changed.train_step(begun, X)
        assert after.counters.step == 2
        assert metrics["lr"] == (0.1 if isinstance(lr, Plateau) else lr(1))

    def test_a_schedule_that_fails_by_itself_is_not_explained(self) -> None:
        rates = {0: 0.1}
        made = program(lr=lambda step: rates[step])
        state, _ = made.train_step(made.init(), X)
        with pytest.raises(KeyError) as caught:
            made.train_step(state, X)
        assert not isinstance(caught.value, ScheduleStateError)

    def test_a_constant_needs_nothing(self) -> None:
        made = program(lr=WarmupCosine(0.1, warmup_steps=2, steps=9))
        _, metrics = program(lr=Constant(0.5)).train_step(made.init(), X)
        assert metrics["lr"] == 0.5
