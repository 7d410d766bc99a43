"""Mixtures: several sources, drawn by weights, and back to any place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from data_kinds import CutAt, SavesItself, SavesItselfSized, p_value
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain import tree
from functrain.data import Batches, Interpolated, Mixture, Temperature, as_source
from functrain.data.weights import BLOCK
from functrain.errors import ConfigurationError, DataChangedError

pytestmark = pytest.mark.row(31)


def three(**options: Any) -> Mixture:
    columns = [torch.arange(n) + 1000 * k for k, n in enumerate((40, 100, 260))]
    sources = {f"s{k}": Batches(column, 4, seed=k) for k, column in enumerate(columns)}
    return Mixture(sources, **options)


def shares(mixture: Mixture, stop: int, start: int = 0) -> list[int]:
    before, after = mixture.drawn(start), mixture.drawn(stop)
    return [after[name] - before[name] for name in after]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("uniform", [1, 1, 1]),
        ("proportional", [10, 25, 65]),
        ([0.2, 0.7, 0.1], [0.2, 0.7, 0.1]),
        ({"s2": 3, "s0": 1, "s1": 2}, [1, 2, 3]),
        (Temperature(2.0), [10**0.5, 25**0.5, 65**0.5]),
        (Temperature(3.0, cap=20), [10 ** (1 / 3), 20 ** (1 / 3), 20 ** (1 / 3)]),
        (lambda batch: [1, 2, 1], [1, 2, 1]),
        (torch.tensor([0.5, 0.25, 0.25]), [2, 1, 1]),
    ],
)
def test_sources_come_as_often_as_their_weights_say(weights: Any, expected: list[float]) -> None:
    mixture = three(weights=weights, seed=3)
    n = 20_000
    scaled = [n * weight / sum(expected) for weight in expected]
    assert p_value(shares(mixture, n), scaled) > 1e-3
    assert list(mixture.probabilities().values()) == pytest.approx(
        [weight / sum(expected) for weight in expected]
    )


def test_draws_are_independent_of_one_another_within_and_across_blocks() -> None:
    mixture = three(weights="uniform")
    draws = mixture.choices.between(0, 3 * BLOCK)
    for lag in (1, 2, 7, BLOCK):
        pairs = torch.bincount(draws[:-lag] * 3 + draws[lag:], minlength=9)
        assert p_value(pairs.tolist()) > 1e-4, lag


def test_a_source_without_weight_is_never_drawn() -> None:
    assert shares(three(weights=[1, 0, 0]), 100_000) == [100_000, 0, 0]
    assert shares(three(weights=[0, 1, 0]), 100_000) == [0, 100_000, 0]
    assert shares(three(weights=[0.1, 0.2, 0.0]), 100_000)[2] == 0
    never = three(weights=lambda batch: {"s0": 0, "s1": 1e-9, "s2": 0})
    assert shares(never, 100) == [0, 100, 0]


def test_weights_change_over_time() -> None:
    mixture = three(weights=Interpolated({10_000: [1, 0, 0], 30_000: [0, 0, 5]}))
    assert shares(mixture, 10_000) == [10_000, 0, 0]
    assert shares(mixture, 60_000, 30_000) == [0, 0, 30_000]
    first = shares(mixture, 20_000, 10_000)
    assert first[1] == 0
    assert p_value(first[::2], [7500, 2500]) > 1e-3
    assert mixture.probabilities(15_000) == {"s0": 0.75, "s1": 0.0, "s2": 0.25}
    assert mixture.probabilities(99_999) == {"s0": 0.0, "s1": 0.0, "s2": 1.0}
    one = three(weights=Interpolated({5: [1, 1, 2]}))
    assert one.probabilities(0) == one.probabilities(9) == {"s0": 0.25, "s1": 0.25, "s2": 0.5}


def test_seeds_give_other_draws_and_the_same_seed_the_same() -> None:
    names = three(seed=1).names(0, 200)
    assert names == three(seed=1).names(0, 200) != three(seed=2).names(0, 200)
    assert names[50:] == three(seed=1).names(50, 200)


def test_each_source_has_its_own_epochs() -> None:
    mixture = three(weights=[3, 1, 1], with_names=True)
    source = as_source(mixture)
    found: dict[str, list[Any]] = {"s0": [], "s1": [], "s2": []}
    for epoch in range(2):
        for name, batch in source.epoch(7, epoch, 0, None):
            found[name].append(batch)
    source.close()
    assert len(found["s0"]) > 2 * len(mixture.sources["s0"])
    for name, batches in found.items():
        own = (batch for _, _, batch in mixture.sources[name].stream())
        assert not tree.diff(batches, [next(own) for _ in batches])


def test_an_epoch_is_all_batches_or_the_given_length() -> None:
    assert len(three()) == len(list(three())) == 10 + 25 + 65
    assert len(list(three(length=7))) == 7
    by_list = Mixture([[1, 2], [3]], length=3)
    assert list(by_list.sources) == ["0", "1"]
    assert set(by_list) <= {1, 2, 3}


class Endless:
    """Batches of unknown number; three an epoch."""

    def __iter__(self) -> Iterator[Any]:
        return (torch.full((2,), k + random.random()) for k in range(3))


def own_generator() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(3)
    return DataLoader(TensorDataset(torch.arange(5)), 2, shuffle=True, generator=generator)


def of_all_kinds() -> Mixture:
    sources = {
        "batches": Batches(torch.arange(9), 2, seed=2),
        "list": [torch.ones(1), torch.ones(2)],
        "loader": DataLoader(TensorDataset(torch.arange(7)), 2, shuffle=True),
        "own generator": own_generator(),
        "unknown length": Endless(),
        "own state": SavesItself(3),
        "own state and length": SavesItselfSized(3),
        "mixture": Mixture([Batches(torch.arange(3), 1), Endless()], weights="uniform", length=4),
    }
    return Mixture(sources, weights="uniform", length=13, with_names=True, seed=5)


def read(mixture: Mixture, epoch: int, start: int, saved: Any) -> list[Any]:
    source, found = as_source(mixture), []
    for epoch in range(epoch, 4):
        for batch in source.epoch(7, epoch, start, saved):
            found.append((batch, source.state()))
        start, saved = 0, None
    source.close()
    return found


def test_every_kind_of_source_resumes_exactly_after_any_interruption() -> None:
    whole = read(of_all_kinds(), 0, 0, None)
    assert {name for (name, _), _ in whole} == set(of_all_kinds().sources)
    expected = [batch for batch, _ in whole]
    for done in range(1, len(whole)):
        torch.manual_seed(done), random.seed(done)
        rest = read(of_all_kinds(), *divmod(done, 13), whole[done - 1][1])
        assert not tree.diff([batch for batch, _ in rest], expected[done:]), done


@pytest.mark.parametrize("back", [1, 2])
def test_batches_of_a_failed_step_are_drawn_again(back: int) -> None:
    whole = read(of_all_kinds(), 0, 0, None)
    expected = [batch for batch, _ in whole]
    for drawn in range(13 + back, len(whole), 3):
        if (drawn - back) // 13 != (drawn - 1) // 13:
            continue  # a step does not reach over the end of an epoch
        rest = read(of_all_kinds(), *divmod(drawn - back, 13), whole[drawn - 1][1])
        assert not tree.diff([batch for batch, _ in rest], expected[drawn - back :]), drawn


def test_batches_of_an_earlier_epoch_of_the_source_are_drawn_again() -> None:
    """A loader with a generator of its own saves it for one epoch only."""

    def make() -> Mixture:
        return Mixture([own_generator()], weights="uniform", length=40)

    expected = list(as_source(make()).epoch(7, 0, 0, None))
    for drawn in range(2, 12):
        source = as_source(make())
        batches = source.epoch(7, 0, 0, None)
        for _ in range(drawn):
            next(batches)
        rest = as_source(make()).epoch(7, 0, drawn - 2, source.state())
        assert not tree.diff(list(rest), expected[drawn - 2 :]), drawn


def test_a_step_may_take_many_epochs_of_a_small_source() -> None:
    def make() -> Mixture:
        return Mixture([Batches(torch.arange(2), 1), [torch.ones(1)]], weights="uniform", length=30)

    source = as_source(make())
    expected = list(source.epoch(7, 0, 0, None))
    rest = as_source(make()).epoch(7, 0, 9, source.state())
    assert not tree.diff(list(rest), expected[9:])


def test_without_a_saved_state_positions_are_found_by_counting() -> None:
    """As for ``iterate``, which begins at the position of a state."""

    def make() -> Mixture:
        sources = [Batches(torch.arange(9), 2), [torch.ones(1)], Endless()]
        return Mixture(sources, weights="uniform", length=13)

    expected = [batch for batch, _ in read(make(), 0, 0, None)]
    rest = [batch for batch, _ in read(make(), 2, 5, None)]
    assert not tree.diff(rest, expected[31:])


def test_a_second_pass_over_the_same_epoch_is_the_same() -> None:
    source = as_source(three(length=9))
    passes = [list(source.epoch(0, 0, 0, None)) for _ in range(2)]
    assert not tree.diff(*passes)


def test_the_position_after_a_billion_batches_needs_no_reading() -> None:
    """Every block before is counted once; the law is that of the ones counted here."""
    mixture = three(weights="uniform")
    counts = mixture.choices.counts(5 * BLOCK + 17)
    draws = mixture.choices.between(0, 5 * BLOCK + 17)
    assert counts == torch.bincount(draws, minlength=3).tolist()
    for start, stop in pairwise([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 5 * BLOCK + 17]):
        assert mixture.choices.between(start, stop).tolist() == draws[start:stop].tolist()


def test_an_exhausted_iterator_in_a_mixture_is_an_error() -> None:
    mixture = Mixture([iter([torch.ones(1)] * 3)], weights="uniform", length=4)
    with pytest.raises(DataChangedError, match="only once"):
        list(mixture)


def test_another_mixture_cannot_load_the_state() -> None:
    source = as_source(three())
    next(source.epoch(0, 0, 0, None))
    other = as_source(Mixture([[1]], weights="uniform"))
    with pytest.raises(DataChangedError, match="mixture"):
        other.epoch(0, 0, 1, source.state())


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "one or more"),
        ("ab", {}, "a dict by name or a list"),
        ({1: [1]}, {}, "named by strings"),
        ([[1], [2]], {"weights": [1]}, "one weight for each"),
        ([[1], [2]], {"weights": [1, -1]}, "not negative"),
        ([[1], [2]], {"weights": [0, 0]}, "not all zero"),
        ([[1], [2]], {"weights": [1, float("nan")]}, "finite"),
        ([[1], [2]], {"weights": {"0": 1, "x": 2}}, "name each source once"),
        ([[1], [2]], {"weights": "sqrt"}, "weights: expected"),
        ([[1], Endless()], {"weights": [1, 1]}, "length=batches"),
        ([[1], Endless()], {"length": 5}, "unknown for"),
        ([[1], [2]], {"length": 0}, "length: expected an integer >= 1"),
        ([[1], [2]], {"weights": lambda batch: [1, 2, 3], "length": 3}, "one weight for each"),
    ],
)
def test_invalid_mixtures_are_refused(sources: Any, options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        list(Mixture(sources, **options))


@pytest.mark.parametrize("points", [{}, {-1: [1]}])
def test_points_must_be_from_the_first_batch_on(points: Any) -> None:
    with pytest.raises(ConfigurationError):
        Interpolated(points)


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (float("inf"),), (1.0, 0)])
def test_a_temperature_is_positive(arguments: Any) -> None:
    with pytest.raises(ConfigurationError):
        Temperature(*arguments)


# -- through fit ---------------------------------------------------------------------------------


def loss(model: Any, batch: Any) -> torch.Tensor:
    name, x = batch
    assert name in ("a", "b", "c")
    return model(x.float()[:, None] / 100).square().mean()


def test_an_interrupted_run_over_a_mixture_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    program = ft.program(torch.nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.01), accumulate=2)

    def run(directory: str, cuts: list[int]) -> ft.Run:
        for cut in [*cuts, 99]:
            mixture = Mixture(
                {"a": Batches(torch.arange(9), 2), "b": SavesItselfSized(3), "c": SavesItself(3)},
                weights=Interpolated({0: [1, 0, 1], 20: [0, 1, 1]}),
                length=7,
                with_names=True,
            )
            options: dict[str, Any] = {"directory": tmp_path / directory, "until": "15 steps"}
            result = ft.fit(program, mixture, listeners=[CutAt(cut)], **options)
        return result

    straight, resumed = run("one", []), run("two", [3, 7, 8])
    assert tree.diff(straight.state, resumed.state) == []
    assert tree.diff(straight.history.rows, resumed.history.rows) == []


class Bad(RuntimeError):
    pass


def test_a_failed_step_over_a_mixture_is_retried_on_the_same_batch(tmp_path: Path) -> None:
    seen: list[Any] = []
    fails = [5]

    def failing(model: Any, batch: Any) -> torch.Tensor:
        seen.append(batch)
        if len(seen) in fails:
            raise Bad
        return loss(model, batch)

    program = ft.program(torch.nn.Linear(1, 1), failing, ft.optim.SGD(lr=0.01))

    def run() -> ft.Run:
        sources = {"a": Batches(torch.arange(9), 2), "b": SavesItselfSized(3), "c": SavesItself(3)}
        mixture = Mixture(sources, weights="uniform", length=9, with_names=True)
        return ft.fit(program, mixture, until="9 steps", directory=tmp_path)

    with pytest.raises(Bad):
        run()
    run()
    batches, fails[:] = [*seen[:4], *seen[5:]], []
    sources = {"a": Batches(torch.arange(9), 2), "b": SavesItselfSized(3), "c": SavesItself(3)}
    mixture = Mixture(sources, weights="uniform", length=9, with_names=True)
    source = as_source(mixture)
    assert not tree.diff(batches, list(source.epoch(0, 0, 0, None)))
