"""Laws of populations: a member depends on nothing but itself."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from populations import alone, program, require_close, trained

import functrain as ft
from functrain import optim

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
