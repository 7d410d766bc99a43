"""A step's draws from ``random`` and NumPy follow from its state, and leave no trace."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.core.global_generators import sample_scope
from functrain.core.rng import scoped
from functrain.errors import ConfigurationError, FunctrainWarning, RandomnessError

X = torch.linspace(-1.0, 1.0, 16).reshape(8, 2)


def numbers() -> tuple[float, ...]:
    """A draw of each kind; an odd number of normal ones leaves half a pair behind."""
    return (
        random.random(),
        random.gauss(0, 1),
        random.randrange(1000) / 1000,
        float(np.random.rand()),
        float(np.random.randn()),
        float(np.random.permutation(1000)[0] / 1000),
    )


def snapshot() -> tuple[Any, ...]:
    """Everything that a draw from a global generator goes by."""
    state = np.random.get_state(legacy=False)
    return random.getstate(), np.random.get_bit_generator(), repr_exactly(state)


def repr_exactly(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: repr_exactly(value) for name, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


def program(draw: Callable[[], Any], **options: Any) -> ft.Program:
    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch * (1 + float(np.sum(draw())))).square().mean()

    torch.manual_seed(0)
    return ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.01), **options)


SETUPS: dict[str, Callable[[], object]] = {
    "fresh": lambda: (random.seed(1), np.random.seed(1)),
    "half pairs left": lambda: (
        random.seed(1),
        random.gauss(),
        np.random.seed(1),
        np.random.randn(),
    ),
    "words used up": lambda: random.setstate((3, (*range(7, 631), 624), None)),
    "another bit generator": lambda: np.random.set_bit_generator(np.random.PCG64(3)),
    "another one, half a pair": lambda: (
        np.random.set_bit_generator(np.random.PCG64(3)),
        np.random.randn(),
    ),
    "one of the same kind": lambda: np.random.set_bit_generator(np.random.MT19937(3)),
}

DRAWS: dict[str, Callable[[], Any]] = {
    "numbers": numbers,
    "a round of words": lambda: np.random.rand(312).sum() + random.getrandbits(624 * 32) % 97,
    "seeded within": lambda: (random.seed(3), np.random.seed(3), numbers())[2],
    "states set within": lambda: (
        random.setstate(random.Random(4).getstate()),
        np.random.set_state(np.random.RandomState(4).get_state()),
        numbers(),
    )[2],
    "a bit generator set within": lambda: (
        np.random.set_bit_generator(np.random.PCG64(4)),
        numbers(),
    )[1],
}


@pytest.fixture(autouse=True)
def bits_put_back() -> Any:
    bits = np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(bits)


def test_a_seed_starts_at_the_same_numbers_for_ever() -> None:
    with scoped(7):
        assert random.random() == 0.17909638942597095
        assert float(np.random.rand()) == 0.1087132793984219


def test_streams_differ_from_each_other_and_between_seeds() -> None:
    drawn = []
    for seed in (1, 2, 2**31):
        with scoped(seed):
            drawn.append([random.random() for _ in range(2000)])
            drawn.append(np.random.rand(2000).tolist())
            drawn.append(torch.rand(2000, dtype=torch.float64).tolist())
    correlation = np.corrcoef(np.array(drawn)) - np.eye(len(drawn))
    assert np.abs(correlation).max() < 0.1


def test_no_word_is_drawn_in_two_streams() -> None:
    with scoped(11):
        streams = [
            {random.getrandbits(32) for _ in range(3000)},
            set(np.random.randint(0, 2**32, 3000, dtype=np.uint32).tolist()),
            set(torch.randint(0, 2**32, (3000,)).tolist()),
        ]
    assert sum(map(len, streams)) - len(set.union(*streams)) < 3


@pytest.mark.parametrize("scope", [scoped, "sample"])
@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("setup", SETUPS)
def test_a_scope_gives_back_bit_for_bit(setup: str, draw: str, scope: Any) -> None:
    SETUPS[setup]()
    before = snapshot()

    def use() -> Any:
        if scope == "sample":
            with sample_scope() as within:
                within.seed(5)
                return np.sum(DRAWS[draw]())
        with scoped(5):
            return np.sum(DRAWS[draw]())

    first = use()
    assert snapshot() == before
    numbers()
    assert use() == first


def test_a_scope_gives_back_after_an_error_and_within_another() -> None:
    numbers()
    with scoped(1):
        whole = [numbers() for _ in range(3)]
    before = snapshot()

    def fail() -> None:
        with scoped(1):
            assert numbers() == whole[0]
            with scoped(2):
                assert numbers() != whole[1]
            assert numbers() == whole[1]
            with sample_scope() as inner:
                inner.seed(1)
                numbers()
            assert numbers() == whole[2]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert snapshot() == before


class TestSteps:
    @pytest.mark.parametrize("draw", DRAWS)
    @pytest.mark.parametrize(
        "made",
        [
            lambda draw: program(draw),
            lambda draw: program(draw, accumulate=2),
            lambda draw: ft.donated(program(draw)),
            lambda draw: ft.checked(program(draw)),
            lambda draw: ft.compiled(program(draw), backend="eager", fallback=True),
        ],
    )
    @pytest.mark.filterwarnings("ignore::functrain.errors.FallbackWarning")
    def test_a_step_follows_from_its_state(self, made: Any, draw: str) -> None:
        own = made(DRAWS[draw])
        before = snapshot()
        first, metrics = own.train_step(own.init(), X)
        assert snapshot() == before
        numbers()
        second, again = own.train_step(own.init(), X)
        assert ft.tree.equal(first, second)
        assert ft.tree.equal(metrics, again)

    def test_steps_and_evaluations_draw_different_numbers(self) -> None:
        seen: list[tuple[float, ...]] = []
        own = program(lambda: (seen.append(numbers()), 0.0)[1])
        state = own.init()
        state, _ = own.train_step(state, X)
        own.train_step(state, X)
        own.eval_step(state, X)
        with own.evaluating(state):
            seen.append(numbers())
        own.train_step(ft.fork(state, seed=1), X)
        assert len(set(seen)) == 4
        assert seen[2] == seen[3]

    def test_micro_batches_draw_one_after_the_other(self) -> None:
        seen: list[tuple[float, ...]] = []
        own = program(lambda: (seen.append(numbers()), 0.0)[1], accumulate=4)
        own.train_step(own.init(), X)
        assert len(set(seen)) == 4

    def test_a_loss_may_make_a_step_itself(self) -> None:
        inner = program(numbers)
        start = inner.init()

        def draw() -> float:
            first = numbers()
            inner.train_step(start, X)
            return sum(first) + sum(numbers())

        own = program(draw)
        before = snapshot()
        first, _ = own.train_step(own.init(), X)
        assert snapshot() == before
        assert ft.tree.equal(first, own.train_step(own.init(), X)[0])

    def test_a_factory_draws_from_the_seed_of_init(self) -> None:
        def model() -> nn.Module:
            made = nn.Linear(2, 1)
            nn.init.constant_(made.weight, random.random() + float(np.random.rand()))
            return made

        own = ft.program(model, lambda model, x: model(x).mean(), ft.optim.SGD(lr=0.1))
        assert ft.tree.equal(own.init(seed=3), own.init(seed=3))
        assert not torch.equal(own.init(seed=3).params["weight"], own.init(seed=4).params["weight"])

    def test_a_resumed_run_draws_what_the_whole_one_does(self, tmp_path: Any) -> None:
        def run(directory: str, until: str) -> Any:
            data = ft.data.Batches(X, 4, seed=0)
            return ft.fit(program(numbers), data, until=until, directory=tmp_path / directory)

        whole = run("whole", "6 steps")
        run("cut", "2 steps")
        numbers()
        assert ft.tree.equal(run("cut", "6 steps").state, whole.state)


class TestLateDraws:
    """The first draw from ``random`` or NumPy comes after the steps that are watched."""

    def late(self, first: int, **options: Any) -> ft.Program:
        calls: list[int] = []

        def draw() -> float:
            calls.append(0)
            return sum(numbers()) if len(calls) > first else 0.0

        return program(draw, **options)

    def run(self, own: ft.Program, steps: int) -> list[float]:
        state, losses = own.init(), []
        for _ in range(steps):
            state, metrics = own.train_step(state, X)
            losses.append(float(metrics["loss"]))
        return losses

    def test_those_that_the_program_names_follow_from_the_state(self) -> None:
        before = snapshot()
        first = self.run(self.late(20, random=("python", "numpy")), 25)
        assert snapshot() == before
        numbers()
        assert self.run(self.late(20, random=("python", "numpy")), 25) == first

    def test_others_are_found_and_seeded_from_then_on(self) -> None:
        own = self.late(20)
        with pytest.warns(FunctrainWarning, match=r"random=\['numpy', 'python'\]"):
            self.run(own, 128)
        before = snapshot()
        self.run(own, 3)
        assert snapshot() == before

    def test_steps_that_draw_nothing_leave_them_as_they_are(self) -> None:
        before = snapshot()
        self.run(self.late(1000), 130)
        assert snapshot() == before

    def test_ft_checked_finds_them(self) -> None:
        own = self.late(20)
        self.run(own, 21)
        with pytest.raises(ft.errors.ImpurityError, match="generator"):
            self.run(ft.checked(own), 3)

    def test_other_names_are_refused(self) -> None:
        with pytest.raises(ConfigurationError, match="random"):
            program(numbers, random="torch")


SCRIPT = """
import sys, torch, numpy, functrain as ft
assert "numpy.random" not in sys.modules
def loss(model, batch):
    return model(batch).square().mean() * numpy.random.rand()
program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
state = program.init()
for _ in range(2):
    print(float(program.train_step(state, torch.ones(4, 2))[1]["loss"]))
"""


def test_the_generator_that_numpy_makes_at_its_first_use_is_seeded_too() -> None:
    command = [sys.executable, "-c", SCRIPT]
    first, second = subprocess.run(command, capture_output=True, check=True).stdout.split()
    assert first == second


class TestSystemSeeds:
    @pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip_norm": 1.0}])
    def test_a_step_that_is_seeded_by_the_system_is_refused(self, options: Any) -> None:
        own = program(lambda: torch.seed() * 0.0 + float(torch.rand(())), **options)
        state = own.init()
        before = torch.get_rng_state()
        with pytest.raises(RandomnessError, match=r"torch.seed\(\)(.|\n)*torch.randint"):
            own.train_step(state, X)
        assert torch.equal(torch.get_rng_state(), before)
        with pytest.raises(RandomnessError, match=r"torch.seed\(\)"):
            own.eval_step(state, X)

    def test_a_donated_state_is_left_as_it_was(self) -> None:
        own = ft.donated(program(lambda: torch.seed() * 0.0))
        state = own.init()
        with pytest.raises(RandomnessError):
            own.train_step(state, X)
        assert ft.tree.equal(state, own.init())

    @pytest.mark.parametrize(
        "seed",
        [
            lambda: torch.manual_seed(3),
            lambda: torch.manual_seed(2**40 + 1),
            lambda: torch.manual_seed(int(torch.randint(2**52, ()))),
            lambda: torch.manual_seed(torch.initial_seed() + 1),
            lambda: torch.manual_seed(random.randrange(2**50)),
        ],
    )
    def test_a_seed_that_follows_from_the_state_is_accepted(self, seed: Any) -> None:
        own = program(lambda: (seed(), float(torch.rand(())))[1])
        first, _ = own.train_step(own.init(), X)
        assert ft.tree.equal(first, own.train_step(own.init(), X)[0])
        assert own.eval_step(first, X)["loss"] == own.eval_step(first, X)["loss"]
