"""Laws of populations: a member depends on nothing but itself, and a run resumes exactly."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from populations import alone, batch, program, require_close, trained
from trying import tried

import functrain as ft
from functrain import optim
from functrain.testing import Cut, check_resumes
from functrain.testing.strategies import cuts
from functrain.training.early_stopping import Halving, PopulationBasedTraining

RATES = [0.001, 0.01, 0.02, 0.05, 0.1]
OPTIMIZERS = [
    optim.SGD(0.1, momentum=0.9),
    optim.AdamW(0.1),
    optim.RMSprop(0.1),
    optim.Lion(0.1),
    optim.Lookahead(optim.Adam(0.1), sync_period=2),
]
optimizers = st.sampled_from(OPTIMIZERS)
members = st.permutations(range(5)).flatmap(
    lambda order: st.integers(2, 5).map(lambda count: list(order[:count]))
)


def made(optimizer: Any, order: list[int]) -> Any:
    """Return a population of some of five members."""
    rates = {"lr": [RATES[number] for number in order]}
    return ft.population(program(optimizer, ema=0.9, clip_norm=1.0), rates, seeds=order)


@given(optimizers, members, st.integers(1, 4))
def test_a_member_has_the_same_bytes_whatever_the_others_are(
    optimizer: Any, order: list[int], steps: int
) -> None:
    every, some = made(optimizer, list(range(5))), made(optimizer, order)
    expected, _ = trained(every, steps)
    found, _ = trained(some, steps)
    for place, member in enumerate(order):
        assert ft.tree.equal(every.member(expected, member), some.member(found, place))


@given(optimizers, members, st.integers(0, 4))
def test_taking_members_out_and_stacking_them_changes_nothing(
    optimizer: Any, order: list[int], cut: int
) -> None:
    pop = made(optimizer, order)
    expected, _ = trained(pop, 4)
    state, _ = trained(pop, cut)
    again = pop.stacked([pop.member(state, place) for place in range(len(order))])
    assert ft.tree.equal(expected, trained(pop, 4 - cut, again)[0])


@given(optimizers, members)
def test_a_member_has_the_numbers_of_its_program_alone(optimizer: Any, order: list[int]) -> None:
    pop = made(optimizer, order)
    state, _ = trained(pop, 3)
    require_close(alone(pop, 0, 3)[0], pop.member(state, 0), rtol=1e-7)


STEPS = 8
BOUNDS = {"lr": (0.001, 0.1)}
rules = st.lists(
    st.one_of(
        st.builds(ft.EarlyStop, patience=st.integers(1, 2), upper=st.sampled_from([None, 1.5])),
        st.builds(Halving, every=st.integers(1, 3), least=st.integers(1, 2)),
        st.builds(
            PopulationBasedTraining,
            st.just(BOUNDS),
            every=st.integers(1, 2),
            share=st.sampled_from([0.25, 0.5]),
            seed=st.integers(0, 9),
        ),
    ),
    max_size=2,
)
options = st.fixed_dictionaries({
    "ema": st.sampled_from([None, 0.9]),
    "clip_norm": st.sampled_from([None, 1.0]),
    "accumulate": st.integers(1, 2),
    "nonfinite": st.sampled_from(["raise", "skip", "ignore"]),
})  # fmt: skip


@tried(30)
@given(
    optimizer=optimizers,
    order=members,
    given_options=options,
    rule=rules,
    batches=st.sampled_from(["shared", "own"]),
    every=st.integers(1, 3),
    where=cuts(steps=STEPS),
)
def test_an_interrupted_population_ends_in_the_same_bytes(
    optimizer: Any,
    order: list[int],
    given_options: dict[str, Any],
    rule: list[Any],
    batches: Any,
    every: int,
    where: list[Cut],
) -> None:
    own = len(order) if batches == "own" else None
    data = [batch(number, own) for number in range(3)]

    def run() -> dict[str, Any]:
        values = {"lr": [RATES[number] for number in order]}
        made = program(optimizer, **given_options)
        return {
            "program": ft.population(made, values, seeds=order, batches=batches),
            "data": data,
            "eval_data": data,
            "eval_every": f"{every} steps",
            "save_every": "2 steps",
            "early_stop": rule,
        }

    check_resumes(run, steps=STEPS, cuts=where)


@given(optimizers, members, st.integers(0, 3))
def test_a_member_that_is_saved_and_loaded_goes_back_unchanged(
    optimizer: Any, order: list[int], steps: int
) -> None:
    pop = made(optimizer, order)
    state, _ = trained(pop, steps)
    with TemporaryDirectory() as place:
        each = []
        for member in range(len(order)):
            one = pop.member(state, member)
            path = ft.save(Path(place) / str(member), one)
            each.append(ft.load(path, like=one))
    assert ft.tree.equal(state, pop.stacked(each))
