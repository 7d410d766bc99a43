"""A run that continues beyond the end of its learning rate schedule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

import functrain as ft
from functrain.errors import ConfigurationError, ScheduleEndedError, ScheduleEndedWarning
from functrain.schedules import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    ExponentialWarmup,
    Hyperbolic,
    Joined,
    Lambda,
    Linear,
    OneCycle,
    Piecewise,
    Plateau,
    Polynomial,
    Scaled,
    Schedule,
    Sequential,
    Spike,
    Step,
    Warmup,
    WarmupCosine,
    WarmupLinear,
    WarmupStableDecay,
    from_torch,
)
from functrain.schedules.resuming import resumed
from functrain.schedules.schedule_end import scheduled

FIRST, LAST = 20, 50
BATCHES = [torch.full((2, 3), float(index) / 10) for index in range(10)]

OPEN: dict[str, Callable[[], Any]] = {
    "linear": lambda: Linear(0.1),
    "cosine": lambda: Cosine(0.1),
    "polynomial": lambda: Polynomial(0.1, power=2),
    "hyperbolic": lambda: Hyperbolic(0.1, upper_bound=100, infimum_lr=0.0),
    "one cycle": lambda: OneCycle(0.1),
    "warmup linear": lambda: WarmupLinear(0.1, warmup_steps=3),
    "warmup cosine": lambda: WarmupCosine(0.1, warmup_proportion=0.1),
    "warmup stable decay": lambda: WarmupStableDecay(0.1, warmup_steps=3, decay_proportion=0.2),
    "warmup": lambda: Warmup(0.1, 3, then=Cosine(0.1)),
    "exponential warmup": lambda: ExponentialWarmup(2, then=Cosine(0.1)),
    "scaled": lambda: Scaled(Cosine(0.1), 0.5),
    "sequential": lambda: Sequential([0.1, Cosine(0.1)], [5]),
    "joined": lambda: Joined([(0.3, Linear(0.0, end=0.1)), (0.7, Cosine(0.1))]),
    "joined twice": lambda: Joined([(0.5, Joined([(0.5, 0.1), (0.5, 0.2)])), (0.5, Cosine(0.1))]),
    "joined with torch's": lambda: Joined(
        [(0.5, from_torch(lr_scheduler.StepLR, lr=0.1, step_size=4)), (0.5, Cosine(0.1))]
    ),
    "spike": lambda: Spike(Cosine(0.1)),
}
FIXED: dict[str, Callable[[], Any]] = {
    "own steps": lambda: WarmupCosine(0.1, warmup_steps=3, steps=FIRST),
    "lambda": lambda: Lambda(lambda step: max(0.0, 0.1 * (1 - step / FIRST))),
    "piecewise": lambda: Piecewise({0: 0.1, FIRST: 0.0}),
    "factor": lambda: Step(0.1, every=FIRST, factor=0.0),
    "torch's linear": lambda: from_torch(
        lr_scheduler.LinearLR, lr=0.1, start_factor=1.0, end_factor=0.0, total_iters=FIRST
    ),
    "torch's polynomial": lambda: from_torch(lr_scheduler.PolynomialLR, lr=0.1, total_iters=FIRST),
    "torch's lambda": lambda: from_torch(
        lr_scheduler.LambdaLR, lr=0.1, lr_lambda=lambda step: min(step / 3, float(step < FIRST))
    ),
}
ABOVE_ZERO = ("hyperbolic", "one cycle")
"""Those whose last rate is above zero."""
GIVEN: dict[str, Callable[[], Any]] = {
    "zero": lambda: 0.0,
    "constant": lambda: Constant(0.0),
    "scaled by zero": lambda: Scaled(Cosine(0.1, steps=60), 0.0),
    "cycle": lambda: Cyclic(0.0, top=0.1, up=4),
    "restarts": lambda: CosineRestarts(0.1, 5),
    "torch's cosine": lambda: from_torch(lr_scheduler.CosineAnnealingLR, lr=0.1, T_max=10),
    "late": lambda: Sequential([0.0, 0.1], [40]),
    "last update": lambda: Linear(0.1, steps=LAST - 1),
    "plateau": lambda: Plateau(0.1),
}


def program(lr: Any) -> ft.Program:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return ft.program(model, lambda m, batch: m(batch).square().mean(), ft.optim.SGD(lr=lr))


def groups(lr: Any, other: Any) -> ft.Program:
    torch.manual_seed(0)
    optimizer = ft.optim.groups([("weight", ft.optim.SGD(lr=lr)), ("*", ft.optim.SGD(lr=other))])
    model = torch.nn.Linear(3, 1)
    return ft.program(model, lambda m, batch: m(batch).square().mean(), optimizer)


def fit(lr: Any, until: int, directory: Path | None = None, **options: Any) -> ft.Run:
    options = {
        "eval_data": BATCHES[:1],
        "eval_every": "25 steps",
        "save_every": "100 steps",
        **options,
    }
    made = lr if isinstance(lr, ft.Program) else program(lr)
    return ft.fit(made, BATCHES, until=ft.Steps(until), directory=directory, **options)


def rates(run: ft.Run) -> list[float]:
    return run.history["lr"][FIRST:]


def curve(lr: Any, steps: int) -> list[float]:
    """The rates of a run of this length, from its beginning."""
    return fit(lr, steps).history["lr"]


def killed_after(count: int, lr: Any, until: int, directory: Path, **options: Any) -> None:
    class Kill:
        def on_batch_end(self, event: ft.events.BatchEnd) -> None:
            if event.state.counters.step == count:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(lr, until, directory, listeners=[Kill()], **options)


class TestARunThatGoesOn:
    def test_at_a_rate_of_zero_is_refused_before_anything_is_written(self, tmp_path: Path) -> None:
        fit(Cosine(0.1), FIRST, tmp_path)
        before = sorted(tmp_path.rglob("*"))
        log = (tmp_path / "metrics.jsonl").read_bytes()
        told = rf"lr: .* ends at update {FIRST} with a learning rate of exactly 0.* update {LAST}"
        with pytest.raises(ScheduleEndedError, match=told) as refused:
            fit(Cosine(0.1), LAST, tmp_path)
        for choice in ("keep", "stretch", "restart"):
            assert f'schedule_end="{choice}"' in str(refused.value)
            assert f"fit.schedule_end={choice}" in str(refused.value)
        assert sorted(tmp_path.rglob("*")) == before
        assert (tmp_path / "metrics.jsonl").read_bytes() == log

    @pytest.mark.parametrize("name", sorted(OPEN.keys() - ABOVE_ZERO))
    def test_is_refused_whatever_schedule_ends_at_zero(self, name: str) -> None:
        state = fit(OPEN[name](), FIRST).state
        with pytest.raises(ScheduleEndedError, match=r"ends at update 20 .*\n.*\n.*\n.*keep"):
            fit(OPEN[name](), LAST, state=state)

    @pytest.mark.parametrize("name", ABOVE_ZERO)
    def test_at_another_last_rate_is_warned_about(self, name: str) -> None:
        state = fit(OPEN[name](), FIRST).state
        with pytest.warns(ScheduleEndedWarning, match='schedule_end="stretch"'):
            found = fit(OPEN[name](), LAST, state=state).history["lr"]
        assert len(set(found)) == 1
        assert found[0] > 0

    def test_one_update_more_at_zero_is_refused(self, tmp_path: Path) -> None:
        fit(Cosine(0.1), FIRST, tmp_path)
        with pytest.raises(ScheduleEndedError):
            fit(Cosine(0.1), FIRST + 1, tmp_path)

    def test_from_a_state_without_a_directory_is_refused_too(self) -> None:
        run = fit(Cosine(0.1), FIRST)
        with pytest.raises(ScheduleEndedError):
            fit(Cosine(0.1), LAST, state=run.state)
        again = fit(Cosine(0.1), LAST, state=run.state, schedule_end="stretch")
        assert again.history["lr"] == curve(Cosine(0.1), LAST)[FIRST:]

    def test_that_is_over_is_given_back(self, tmp_path: Path) -> None:
        run = fit(Cosine(0.1), FIRST, tmp_path)
        for choice in (None, "keep", "stretch", "restart"):
            again = fit(Cosine(0.1), FIRST, tmp_path, schedule_end=choice)
            assert ft.tree.diff(again.state, run.state) == []

    def test_keeps_its_curve_where_that_is_said(self, tmp_path: Path) -> None:
        """Warnings are errors here."""
        fit(Cosine(0.1), FIRST, tmp_path)
        run = fit(Cosine(0.1), LAST, tmp_path, schedule_end="keep")
        assert rates(run) == [0.0] * (LAST - FIRST)

    @pytest.mark.parametrize("name", OPEN)
    def test_stretches_its_curve_or_begins_another(self, name: str) -> None:
        state = fit(OPEN[name](), FIRST).state
        run = fit(OPEN[name](), LAST, state=state, schedule_end="stretch")
        assert run.history["lr"] == curve(OPEN[name](), LAST)[FIRST:]
        run = fit(OPEN[name](), LAST, state=state, schedule_end="restart")
        assert run.history["lr"] == curve(OPEN[name](), LAST - FIRST)

    @pytest.mark.parametrize(
        ("name", "choice"),
        [
            ("cosine", "keep"),
            ("warmup cosine", "stretch"),
            ("warmup cosine", "restart"),
            ("joined with torch's", "stretch"),
            ("joined with torch's", "restart"),
            ("spike", "stretch"),
        ],
    )
    def test_is_the_same_however_often_it_was_killed(
        self, name: str, choice: Any, tmp_path: Path
    ) -> None:
        for folder in ("whole", "cut"):
            fit(OPEN[name](), FIRST, tmp_path / folder)
        whole = fit(OPEN[name](), LAST, tmp_path / "whole", schedule_end=choice)
        for count in (FIRST + 1, LAST - 1):
            killed_after(count, OPEN[name](), LAST, tmp_path / "cut", schedule_end=choice)
        cut = fit(OPEN[name](), LAST, tmp_path / "cut", schedule_end=choice)
        assert ft.tree.diff(cut.state, whole.state) == []
        logs = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("whole", "cut")]
        assert logs[0] == logs[1]

    @pytest.mark.parametrize("choice", ["stretch", "restart"])
    def test_acts_again_where_it_is_lengthened_again(self, choice: Any, tmp_path: Path) -> None:
        for until in (FIRST, LAST, 80):
            run = fit(WarmupCosine(0.1, warmup_steps=3), until, tmp_path, schedule_end=choice)
        length = 80 if choice == "stretch" else 80 - LAST
        assert run.history["lr"][LAST:] == curve(WarmupCosine(0.1, warmup_steps=3), length)[-30:]

    def test_from_within_its_curve(self, tmp_path: Path) -> None:
        fit(Cosine(0.1), FIRST, tmp_path, save_every="19 steps")
        stretched = fit(Cosine(0.1), LAST, tmp_path, resume=FIRST - 1, schedule_end="stretch")
        assert stretched.history["lr"][FIRST - 1 :] == curve(Cosine(0.1), LAST)[FIRST - 1 :]

    def test_in_one_of_its_groups_is_named(self, tmp_path: Path) -> None:
        fit(groups(0.1, Cosine(0.1)), FIRST, tmp_path)
        with pytest.raises(ScheduleEndedError, match=r"lr\.1: Cosine ends at update 20"):
            fit(groups(0.1, Cosine(0.1)), LAST, tmp_path)
        run = fit(groups(Plateau(0.2), Cosine(0.1)), FIRST, tmp_path / "b")
        run = fit(groups(Plateau(0.2), Cosine(0.1)), LAST, tmp_path / "b", schedule_end="restart")
        assert run.history["lr.1"][FIRST:] == curve(Cosine(0.1), LAST - FIRST)
        assert run.history["lr.0"] == [0.2] * LAST
        assert run.state.scheduler["0"]["best"] < float("inf")

    def test_takes_one_of_three_words(self) -> None:
        with pytest.raises(ConfigurationError, match=r"schedule_end: expected 'keep'.*'longer'"):
            fit(0.1, FIRST, schedule_end="longer")

    def test_with_a_longer_length_of_its_own_is_refused_or_stretched(self, tmp_path: Path) -> None:
        fit(Cosine(0.1, steps=FIRST), FIRST, tmp_path)
        with pytest.warns(ft.errors.RecipeChangedWarning):
            stretched = fit(Cosine(0.1, steps=LAST), LAST, tmp_path, schedule_end="stretch")
        assert rates(stretched) == curve(Cosine(0.1), LAST)[FIRST:]


class TestARunThatNeverStopped:
    @pytest.mark.parametrize("name", FIXED)
    def test_is_refused_where_its_schedule_ends_at_zero(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ScheduleEndedError, match="exactly 0") as refused:
            fit(FIXED[name](), LAST, tmp_path)
        assert not list(tmp_path.glob("step-*"))
        assert not (tmp_path / "metrics.jsonl").exists()
        assert "stretch" not in str(refused.value)
        assert fit(FIXED[name](), LAST, schedule_end="keep").history["lr"][-1] == 0

    @pytest.mark.parametrize("name", FIXED)
    def test_of_a_fixed_length_can_begin_again_but_not_be_stretched(self, name: str) -> None:
        state = fit(FIXED[name](), FIRST).state
        with pytest.raises(ScheduleEndedError, match="exactly 0"):
            fit(FIXED[name](), 2 * FIRST, state=state)
        with pytest.raises(ScheduleEndedError, match="a length of its own"):
            fit(FIXED[name](), 2 * FIRST, state=state, schedule_end="stretch")
        with pytest.raises(ScheduleEndedError, match="a length of its own"):
            fit(FIXED[name](), 9 * FIRST, state=state, schedule_end="restart")
        run = fit(FIXED[name](), 2 * FIRST, state=state, schedule_end="restart")
        assert run.history["lr"] == curve(FIXED[name](), FIRST)

    @pytest.mark.parametrize("name", GIVEN)
    def test_may_have_rates_of_zero_that_are_not_its_end(self, name: str) -> None:
        """Warnings are errors here."""
        assert fit(GIVEN[name](), LAST).state.counters.step == LAST

    def test_whose_length_nobody_knows_is_refused_when_its_schedule_has_ended(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(ScheduleEndedError, match=r"at update 20.*schedule_end=\"keep\""):
            ft.fit(
                program(Cosine(0.1, steps=FIRST)),
                BATCHES,
                until=ft.Samples(2 * LAST),
                directory=tmp_path,
            )
        assert ft.Checkpoints(tmp_path).steps()[-1] == FIRST + 1


class TestALoopOfOnesOwn:
    def test_is_warned_once_its_schedule_has_ended_at_zero(self) -> None:
        made = program(WarmupCosine(0.1, warmup_steps=3, steps=FIRST))
        state = made.init()
        for _ in range(FIRST + 1):  # a single update at zero may be how it ends
            state, _ = made.train_step(state, BATCHES[0])
        with pytest.warns(ScheduleEndedWarning, match=r"lr: WarmupCosine has ended.*update 20"):
            made.train_step(state, BATCHES[0])

    @pytest.mark.parametrize("name", GIVEN)
    def test_may_have_rates_of_zero(self, name: str) -> None:
        """Warnings are errors here."""
        made = program(GIVEN[name]())
        state = made.init()
        for _ in range(LAST):
            state, _ = made.train_step(state, BATCHES[0])
        assert state.counters.step == LAST

    def test_says_what_is_to_happen_where_it_has_a_limit(self) -> None:
        made, run = program(Cosine(0.1)), fit(Cosine(0.1), FIRST)
        until = ft.Steps(LAST)
        with pytest.raises(ScheduleEndedError):
            next(ft.iterate(made, run.state, BATCHES, until=until))
        steps = ft.iterate(made, run.state, BATCHES, until=until, schedule_end="restart")
        assert [float(metrics["lr"]) for _, metrics in steps] == curve(Cosine(0.1), LAST - FIRST)
        steps = ft.iterate(made, run.state, BATCHES, until=until, schedule_end="keep")
        assert {float(metrics["lr"]) for _, metrics in steps} == {0.0}


class TestOneOfTorchThatTakesNoMoreSteps:
    """OneCycleLR raises a ValueError of its own at the step after its last."""

    @staticmethod
    def made(steps: int) -> Any:
        return from_torch(
            lr_scheduler.OneCycleLR, lr=0.1, max_lr=0.1, total_steps=steps, cycle_momentum=False
        )

    @pytest.mark.parametrize("choice", [None, "stretch", "restart"])
    def test_is_refused(self, choice: Any, tmp_path: Path) -> None:
        with pytest.raises(ScheduleEndedError):
            fit(self.made(FIRST), LAST, tmp_path / "at once", schedule_end=choice)
        run = fit(self.made(FIRST), FIRST)
        with pytest.raises(ScheduleEndedError):
            fit(self.made(FIRST), LAST, state=run.state, schedule_end=choice)

    def test_goes_on_by_a_longer_one(self) -> None:
        run = fit(self.made(FIRST), FIRST)
        with pytest.raises(ScheduleEndedError, match=r'="stretch".*\n.*="restart"') as told:
            fit(self.made(LAST), LAST, state=run.state)
        assert "keep" not in str(told.value)
        longer = fit(self.made(LAST), LAST, state=run.state, schedule_end="stretch")
        assert longer.history["lr"] == curve(self.made(LAST), LAST)[FIRST:]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (FIXED["own steps"], 'no length of its own, and schedule_end="stretch"'),
        (FIXED["lambda"], "give Lambda values up to there"),
        (FIXED["torch's linear"], "give TorchSchedule values up to there"),
    ],
    ids=["own steps", "lambda", "torch's linear"],
)
def test_the_remedy_is_one_that_the_schedule_can_follow(make: Callable[[], Any], told: str) -> None:
    run = fit(make(), FIRST)
    with pytest.raises(ScheduleEndedError, match=told):
        fit(make(), LAST, state=run.state)


def test_a_restarted_schedule_resumes_by_name_where_it_is_another() -> None:
    made = program(Cosine(0.1))
    state = scheduled(made, fit(Cosine(0.1), FIRST).state, LAST, "restart")
    assert state.scheduler == {"restarted_at": FIRST, "schedule": {"horizon": LAST - FIRST}}
    assert resumed(made.schedules, state.scheduler) == state.scheduler
    with pytest.raises(ft.errors.ScheduleStateError):
        resumed(program(Plateau(0.1)).schedules, state.scheduler)


class TestALengthThatTheStateOverrules:
    @pytest.mark.parametrize(
        ("before", "after", "said"),
        [
            (Cosine(0.1, steps=60), Cosine(0.1, steps=50), "steps=60, and not .* steps=50"),
            (
                WarmupCosine(0.1, warmup_steps=3, steps=60),
                WarmupCosine(0.1, warmup_steps=9, steps=60),
                "warmup_steps=3, and not .* warmup_steps=9",
            ),
            (
                Scaled(Warmup(0.0, 3, Cosine(0.1, steps=60)), 0.5),
                Scaled(Warmup(0.0, 3, Cosine(0.1, steps=50)), 0.5),
                "steps=60, and not .* steps=50",
            ),
        ],
        ids=["steps", "warmup", "within others"],
    )
    def test_is_named(self, before: Any, after: Any, said: str, tmp_path: Path) -> None:
        state = fit(before, FIRST, tmp_path).state
        with pytest.warns(ft.errors.RecipeChangedWarning, match=said):
            goes_on = fit(after, 30, state=state)
        assert goes_on.history["lr"] == fit(before, 30, state=state).history["lr"]
        changed = pytest.warns(ft.errors.RecipeChangedWarning, match="with something changed")
        with changed, pytest.warns(ft.errors.RecipeChangedWarning, match=said):
            fit(after, 30, tmp_path)
        begun = attrs.evolve(state, scheduler=program(after).init().scheduler)
        assert fit(after, 30, state=begun).history["lr"] == [after(i) for i in range(FIRST, 30)]

    def test_is_named_by_the_first_step_of_a_loop_and_by_no_other(self) -> None:
        shorter, longer = program(Cosine(0.1, steps=50)), program(Cosine(0.1, steps=60))
        state = shorter.init()
        for begun in (state, shorter.train_step(state, BATCHES[0])[0]):
            said = "steps=50, and not .* steps=60"
            with pytest.warns(ft.errors.RecipeChangedWarning, match=said):
                after, metrics = longer.train_step(begun, BATCHES[0])
            assert metrics["lr"].item() == Cosine(0.1, steps=50)(begun.counters.step)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                longer.train_step(after, BATCHES[0])

    def test_of_the_run_is_none(self) -> None:
        """Warnings are errors here."""
        state = fit(WarmupCosine(0.1, warmup_steps=3), FIRST).state
        fit(WarmupCosine(0.1, warmup_steps=3), LAST, state=state, schedule_end="stretch")


TINY: dict[str, Callable[[], Any]] = {
    "one cycle": lambda: OneCycle(0.1, steps=FIRST),
    "cosine": lambda: Cosine(0.1, steps=FIRST, end=1e-6),
    "polynomial": lambda: Polynomial(0.1, steps=FIRST, end=1e-7),
    "warmup": lambda: WarmupLinear(0.1, warmup_steps=3, steps=FIRST, end=1e-5),
    "after a warmup": lambda: Warmup(0.1, 5, then=OneCycle(0.1, steps=FIRST - 5)),
    "scaled": lambda: Scaled(OneCycle(0.1, steps=FIRST), 0.5),
    "sequential": lambda: Sequential([0.1, OneCycle(0.1, steps=FIRST - 5)], [5]),
    "spike": lambda: Spike(OneCycle(0.1, steps=FIRST)),
}
MEANT: dict[str, Callable[[], Any]] = {
    "a tenth": lambda: Cosine(0.1, steps=FIRST, end=0.01),
    "a hundredth": lambda: WarmupCosine(0.1, warmup_steps=3, steps=FIRST, end=0.001),
    "a rise": lambda: Linear(1e-4, steps=FIRST, end=0.1),
    "constant": lambda: Cosine(1e-9, steps=FIRST, end=1e-9),
}


class TestALengthThatEndsAtATinyRate:
    """The rest of the run would train next to nothing."""

    @pytest.mark.parametrize("name", TINY)
    def test_is_warned_about(self, name: str, tmp_path: Path) -> None:
        lr = TINY[name]
        with pytest.warns(ScheduleEndedWarning, match=f"update {FIRST}|update {FIRST - 1}"):
            fit(lr(), LAST)
        state = fit(lr(), FIRST).state
        with pytest.warns(ScheduleEndedWarning, match='schedule_end="keep"'):
            fit(lr(), LAST, state=state)
        with pytest.warns(ScheduleEndedWarning):
            next(ft.iterate(program(lr()), state, BATCHES, until=ft.Steps(LAST)))
        fit(lr(), LAST, schedule_end="keep")

    def test_is_warned_about_in_groups(self) -> None:
        with pytest.warns(ScheduleEndedWarning, match=r"lr\.1: OneCycle"):
            fit(groups(0.1, OneCycle(0.1, steps=FIRST)), LAST)

    @pytest.mark.parametrize("name", TINY)
    def test_is_warned_about_once_in_a_loop_of_ones_own(self, name: str) -> None:
        made = program(TINY[name]())
        state = made.init()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(LAST):
                state, _ = made.train_step(state, BATCHES[0])
        assert [one.category for one in seen] == [ScheduleEndedWarning]

    @pytest.mark.parametrize("name", MEANT)
    def test_may_be_meant(self, name: str) -> None:
        """Warnings are errors here."""
        made = program(MEANT[name]())
        state = fit(made, LAST).state
        made.train_step(state, BATCHES[0])
        state = made.init()
        for _ in range(FIRST + 2):
            state, _ = made.train_step(state, BATCHES[0])


TABLE = [0.1, 0.09, 0.08, 0.0, 0.0]


class OfTable(Schedule):
    """A schedule of the user with one rate for each update."""

    def lr(self, state: Any, step: int) -> float:
        assert step < len(TABLE), "there is no such update"
        return TABLE[step]


TABLES: dict[str, Callable[[], Any]] = {
    "function": lambda: lambda step: TABLE[step],
    "dict": lambda: dict(enumerate(TABLE)).__getitem__,
    "array": lambda: Lambda(np.array(TABLE).__getitem__),
    "class": OfTable,
    "scaled": lambda: Scaled(lambda step: TABLE[step], 0.5),
    "after another": lambda: Sequential([0.1, OfTable()], [1]),
}


class TestATableWithOneRateForEachUpdate:
    @pytest.mark.parametrize("until", ["steps", "samples"])
    @pytest.mark.parametrize("name", TABLES)
    def test_a_run_that_has_ended_is_given_back(
        self, tmp_path: Path, name: str, until: str
    ) -> None:
        steps = 6 if name == "after another" else 5
        limit = ft.Steps(steps) if until == "steps" else f"{2 * steps} samples"
        made = program(TABLES[name]())
        data = [torch.ones(2, 3)] * steps
        first = ft.fit(made, data, until=limit, directory=tmp_path, schedule_end="keep")
        again = ft.fit(made, data, until=limit, directory=tmp_path, schedule_end="keep")
        assert (first.new_steps, again.new_steps) == (steps, 0)
        assert ft.tree.equal(again.state, first.state)

    @pytest.mark.parametrize("name", TABLES)
    def test_a_loop_of_ones_own_takes_all_rates(self, name: str) -> None:
        made = program(TABLES[name]())
        state = made.init()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ScheduleEndedWarning)
            for _ in TABLE:
                state, metrics = made.train_step(state, torch.ones(2, 3))
        assert "lr" in metrics

    @pytest.mark.parametrize("name", TABLES)
    @pytest.mark.parametrize("end", [None, "stretch", "restart"])
    def test_a_longer_run_is_refused_by_name(self, tmp_path: Path, name: str, end: Any) -> None:
        with pytest.raises(ScheduleEndedError, match=r"to which the run|ends before the run"):
            fit(TABLES[name](), 10, tmp_path, schedule_end=end)
