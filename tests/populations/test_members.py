"""Members of a population against the same programs alone, and against each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from populations import alone, batch, net, plain_net, program, require_close, trained
from torch import nn

import functrain as ft
from functrain import optim, schedules

SETS: dict[str, dict[str, Any]] = {
    "lr": {"lr": [0.01, 0.02, 0.03]},
    "optimizer": {"weight_decay": [0.0, 0.1, 0.2], "betas": [(0.9, 0.99), (0.8, 0.9), (0.5, 0.6)]},
    "recipe": {
        "clip_norm": [0.1, 0.5, 2.0],
        "ema": [0.5, 0.9, 0.99],
        "clip_value": [0.1, 0.2, 1.0],
    },
    "schedules": {"lr": [schedules.Cosine(0.1, steps=9), 0.02, schedules.Linear(0.1, steps=20)]},
    "plateau": {"lr": [schedules.Plateau(0.1, patience=p, observes="step") for p in (0, 1, 9)]},
}


@pytest.mark.parametrize("name", SETS)
def test_a_member_has_the_numbers_of_its_program_alone(name: str) -> None:
    pop = ft.population(program(), SETS[name], seeds=[7, 8, 9])
    state, rows = trained(pop, 6)
    for member in range(3):
        expected, own = alone(pop, member, 6)
        require_close(expected, pop.member(state, member))
        for mine, theirs in zip(own, rows, strict=True):
            require_close(mine, {key: value[member] for key, value in theirs.items()})


OPTIMIZERS: dict[str, Any] = {
    "SGD": optim.SGD(0.1),
    "momentum": optim.SGD(0.1, momentum=0.9, dampening=0.1),
    "nesterov": optim.SGD(0.1, momentum=0.9, nesterov=True),
    "amsgrad": optim.Adam(0.01, amsgrad=True),
    "centered": optim.RMSprop(0.01, centered=True, momentum=0.5),
    **{
        name: getattr(optim, name)(0.01)
        for name in ("RAdam", "NAdam", "Adagrad", "Adadelta", "Adamax", "Adafactor")
    },
    **{name: getattr(optim, name)(0.01) for name in ("Lion", "LAMB")},
    "ScheduleFreeAdamW": optim.ScheduleFreeAdamW(0.01),
    "ScheduleFreeSGD": optim.ScheduleFreeSGD(0.1),
    "Muon": optim.groups(
        [("*.weight", optim.Muon(0.01, ns_dtype="float64")), ("*", optim.SGD(0.1))]
    ),
    "Lookahead": optim.Lookahead(optim.SGD(0.1), sync_period=2),
    "ClipByBlockRms": optim.ClipByBlockRms(optim.SGD(0.1), threshold=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_members_with_their_own_rates(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    path = "0.lr" if isinstance(optimizer, optim.groups([("*", optim.SGD(1))]).__class__) else "lr"
    pop = ft.population(program(optimizer, plain_net), {path: [0.01, 0.02]}, seeds=[1, 2])
    state, _ = trained(pop, 4)
    for member in range(2):
        require_close(alone(pop, member, 4)[0], pop.member(state, member), rtol=1e-7)


@pytest.mark.parametrize("batches", ["shared", "own"])
def test_accumulated_and_own_batches_are_those_of_the_member_alone(batches: Any) -> None:
    pop = ft.population(program(accumulate=3), {"lr": [0.1, 0.01, 0.02]}, batches=batches)
    state, _ = trained(pop, 4)
    for member in range(3):
        require_close(alone(pop, member, 4)[0], pop.member(state, member))


def test_sharpness_aware_gradients_are_those_of_each_member() -> None:
    pop = ft.population(ft.sharpness_aware(program()), {"lr": [0.1, 0.01]})
    state, _ = trained(pop, 3)
    for member in range(2):
        require_close(alone(pop, member, 3)[0], pop.member(state, member))


class Unused(nn.Module):
    """A parameter that the loss does not depend on: an optimizer must not decay it."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = plain_net(), nn.Linear(2, 2).double()

    def forward(self, x: Any) -> Any:
        return self.used(x)


def test_a_parameter_without_a_gradient_stays_as_it_was() -> None:
    pop = ft.population(program(optim.AdamW(0.1, weight_decay=0.5), Unused), {"lr": [0.1, 0.2]})
    state, _ = trained(pop, 3)
    assert torch.equal(state.params["unused.weight"], pop.init().params["unused.weight"])
    require_close(alone(pop, 1, 3)[0], pop.member(state, 1))


class Noisy(nn.Module):
    """Draws of several kinds, one of them under a seed that the model sets."""

    def __init__(self) -> None:
        super().__init__()
        self.body = plain_net()

    def forward(self, x: Any) -> Any:
        x = x + torch.randn_like(x) + torch.rand(6, dtype=x.dtype) * torch.randint(0, 3, (6,))
        out = nn.functional.gumbel_softmax(self.body(x))
        torch.manual_seed(3)
        return nn.functional.dropout(out * out.transpose(0, 1).sum(0)[:, None], 0.5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_random_numbers_are_those_that_the_member_draws_alone(accumulate: int) -> None:
    pop = ft.population(program(model=Noisy, accumulate=accumulate), seeds=[3, 8])
    state, _ = trained(pop, 3)
    for member in range(2):
        require_close(alone(pop, member, 3)[0], pop.member(state, member))


class Dropping(nn.Module):
    """Dropout of a tensor that is not contiguous."""

    def __init__(self, drop: Any) -> None:
        super().__init__()
        self.body, self.drop = plain_net(), drop

    def forward(self, x: Any) -> Any:
        first, *rest = self.body
        return nn.Sequential(*rest)(self.drop(first(x).T).T)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.3, batch_first=True).double()
        self.head = nn.Linear(6, 3).double()

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(torch.stack([x, x + 1], 1)).sum(1))


DROPPING: dict[str, Any] = {
    "dropout": lambda: Dropping(lambda x: nn.functional.dropout(x, 0.5)),
    "in place": lambda: Dropping(lambda x: nn.functional.dropout(x, 0.5, inplace=True)),
    "alpha_dropout": lambda: Dropping(lambda x: nn.functional.alpha_dropout(x, 0.5, True)),
    "torch.dropout": lambda: Dropping(lambda x: torch.dropout(x, 0.5, True)),
    "dropout1d": lambda: Dropping(lambda x: nn.functional.dropout1d(x, 0.5)),
    "rand_like": lambda: Dropping(lambda x: x * torch.rand_like(x)),
    "attention": Attending,
}


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_a_draw_after_steps_without_one_is_made_by_each_member(generator: Any) -> None:
    calls = list[int]()

    def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        calls.append(0)
        noise = torch.randn(x.shape, generator=generator) if len(calls) > 4 else torch.zeros(())
        return model(x + noise).square().mean()

    made = ft.program(lambda: nn.Linear(2, 1), loss, optim.SGD(0.1))
    pop = ft.population(made, seeds=[3, 4])
    state, given = pop.init(), torch.ones(4, 2)
    while len(calls) < 4:
        state, _ = pop.train_step(state, given)
    if generator is not None:
        with pytest.raises(ft.errors.UnsupportedError, match="generator that it is given"):
            pop.train_step(state, given)
        return
    after, _ = pop.train_step(state, given)
    for member in range(2):
        expected, _ = pop.programs[member].train_step(pop.member(state, member), given)
        require_close(expected, pop.member(after, member))


@pytest.mark.sweep("name")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", DROPPING)
def test_masks_in_another_memory_order_are_those_of_the_member_alone(
    name: str, compiled: bool
) -> None:
    pop = ft.population(program(optim.SGD(0.1), model=DROPPING[name]), seeds=[3, 8])
    state, _ = trained(ft.compiled(pop, backend="eager") if compiled else pop, 3)
    for member in range(2):
        require_close(alone(pop, member, 3)[0], pop.member(state, member))


def test_a_member_has_the_same_bytes_whatever_the_others_are() -> None:
    values = [0.01, 0.02, 0.5, 0.001, 0.3]
    pop = ft.population(program(ema=0.9), {"lr": values}, seeds=range(5))
    expected, _ = trained(pop, 5)
    for order in ([3, 1], [1, 0, 2], [4, 3, 2, 1, 0]):
        other = ft.population(program(ema=0.9), {"lr": [values[n] for n in order]}, seeds=order)
        found, _ = trained(other, 5)
        for place, member in enumerate(order):
            assert ft.tree.equal(pop.member(expected, member), other.member(found, place))


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_member_that_diverges_is_counted_and_changes_no_other(nonfinite: Any) -> None:
    optimizer = optim.SGD(0.1)
    pop = ft.population(
        program(optimizer, nonfinite=nonfinite), {"lr": [0.1, 1e200, 0.2]}, seeds=[0, 1, 2]
    )
    state, rows = trained(pop, 6)
    assert state.counters.skipped.tolist()[0::2] == [0, 0]
    assert state.counters.skipped[1] > 0
    assert not rows[-1]["loss"][1].isfinite()
    others, expected = pop.only(pop.init(), [0, 2])
    expected, _ = trained(others, 6, expected)
    for place, member in enumerate([0, 2]):
        assert ft.tree.equal(others.member(expected, place), pop.member(state, member))


def test_a_population_of_which_no_member_is_finite_raises() -> None:
    pop = ft.population(program(optim.SGD(0.1)), {"lr": [1e200, 1e250]})
    with pytest.raises(ft.errors.NonFiniteError, match="no member"):
        trained(pop, 6)


def test_inputs_and_generators_are_left_as_they_were() -> None:
    pop = ft.population(program(), {"lr": [0.1, 0.2]})
    state = pop.init()
    before, generator = ft.copy(state), torch.get_rng_state()
    trained(pop, 2, state)
    assert ft.tree.equal(before, state)
    assert torch.equal(generator, torch.get_rng_state())


def test_a_donated_population_consumes_its_state_and_has_the_same_bytes() -> None:
    pop = ft.population(program(), {"lr": [0.1, 0.2]})
    expected, _ = trained(pop, 3)
    donated = ft.donated(pop)
    state = donated.init()
    found, _ = trained(donated, 3, state)
    assert ft.tree.equal(expected, found)
    with pytest.raises(ft.errors.DonatedStateError):
        _ = state.params


@pytest.mark.parametrize("weights", ["params", "ema"])
def test_evaluation_is_that_of_each_member(weights: Any) -> None:
    pop = ft.population(program(ema=0.5), {"lr": [0.1, 0.2]})
    state, _ = trained(pop, 2)
    found = pop.eval_step(state, batch(9), weights)
    for member in range(2):
        expected = pop.programs[member].eval_step(pop.member(state, member), batch(9), weights)
        require_close(expected, {key: value[member] for key, value in found.items()})


def test_a_model_with_present_values_gives_every_member_the_same_weights() -> None:
    pop = ft.population(program(model=net()), seeds=[1, 2])
    weight = pop.init().params["0.weight"]
    assert torch.equal(weight[0], weight[1])
    state, _ = trained(pop, 2)
    assert not torch.equal(state.params["0.weight"][0], state.params["0.weight"][1])


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_a_draw_in_the_backward_that_begins_late_is_by_member(rate: float) -> None:
    def loss(model: nn.Module, given: tuple[bool, torch.Tensor]) -> torch.Tensor:
        is_noisy, x = given
        out: torch.Tensor = model(x)
        if is_noisy:
            out.register_hook(lambda grad: grad + torch.randn_like(grad))
        return out.square().mean()

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.Dropout(rate), nn.Linear(6, 3))

    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    program = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    pop = ft.population(program, seeds=[0, 1, 2])
    state = pop.init()
    alone = [one.init(seed=seed) for seed, one in enumerate(pop.programs)]
    for given in [(False, x), (False, x), (True, x), (True, x)]:
        state, _ = pop.train_step(state, given)
        alone = [
            one.train_step(own, given)[0] for one, own in zip(pop.programs, alone, strict=True)
        ]
    for index, own in enumerate(alone):
        torch.testing.assert_close(dict(pop.member(state, index).params), dict(own.params))
