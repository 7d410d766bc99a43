"""A run that is resumed with other rules of ``early_stop``, matched by what they are."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from populations import batch
from populations import program as of_members
from torch import nn

import functrain as ft
from functrain import errors
from functrain.training.early_stopping import Halving, Overfit, PredictedStop

X = torch.ones(2, 1)
# A plateau of two evaluations, a small improvement, and a long plateau.
VALUES = (5.0, 4.0, 4.5, 4.2, 3.9, *(4.1 + 0.01 * n for n in range(20)))


def go(until: str, rule: Any, directory: Path | None, begin: int = 0, **options: Any) -> ft.Run:
    """Train for epochs of one step, with evaluations that give chosen values of two metrics."""
    values = itertools.islice(VALUES, begin, None)

    def evaluate(model: nn.Module, part: Any) -> ft.Loss:
        value = next(values)
        return ft.Loss(torch.tensor(value), metrics={"score": torch.tensor(-value)})

    loss = lambda model, part: model(part).square().mean()  # noqa: E731
    made = ft.program(lambda: nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1), evaluate=evaluate)
    # The best does not depend on the order of the rules.
    store = directory and ft.Checkpoints(directory, keep_last=3, monitor="eval/loss")
    given: dict[str, Any] = {"eval_data": [X], "early_stop": rule, "directory": store}
    return ft.fit(made, [X], until=until, **given, **options)


def stop(patience: float = 2, **options: Any) -> ft.EarlyStop:
    return ft.EarlyStop("eval/loss", patience=patience, **options)  # type: ignore[arg-type]


def by_score(patience: int = 9) -> ft.EarlyStop:
    return ft.EarlyStop("score", patience=patience, mode="max")


class Own:
    """A rule of a user, which ends a run after so many evaluations."""

    def __init__(self, most: int) -> None:
        self.most = most

    def init(self) -> dict[str, Any]:
        return {"seen": 0, "stop": None}

    def observe(self, state: dict[str, Any], metrics: Any) -> dict[str, Any]:
        seen = state["seen"] + 1
        return {"seen": seen, "stop": "enough" if seen >= self.most else None}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (stop(), None),
        (stop(), stop(4)),
        (stop(), stop(math.inf)),
        (stop(3, min_delta=2.0), stop(3)),
        (stop(3, min_delta=2.0), stop(3, min_delta=0.5)),
        (stop(9, upper=4.4), stop(9)),
        ([stop(), by_score()], by_score()),
        ([stop(), by_score()], [by_score(), stop(4)]),
        (stop(), [by_score(9), stop(4)]),
        ([stop()], stop(4)),
        (Own(3), Own(7)),
        (PredictedStop(bound=-9.0, evaluations=9), PredictedStop(bound=9.0, evaluations=9)),
    ],
)
def test_a_run_that_had_ended_is_the_run_that_had_the_new_rule_from_its_beginning(
    first: Any, second: Any, tmp_path: Path
) -> None:
    expected = go("12 epochs", second, None)
    ended = go("12 epochs", first, tmp_path)
    assert ended.reason == "early_stop"
    step = ended.state.counters.step
    run = go("12 epochs", second, tmp_path, begin=step)
    assert run.new_steps == expected.state.counters.step - step > 0
    assert (run.reason, run.detail) == (expected.reason, expected.detail)
    assert run.history.rows == expected.history.rows
    assert go("12 epochs", second, tmp_path).new_steps == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (stop(3), [stop(3)]),
        ([stop(3)], stop(3)),
        (stop(3), [stop(3), by_score()]),
        (stop(3), [by_score(), stop(3)]),
        ([stop(3), by_score(8)], [by_score(8), stop(3)]),
        ([by_score(8), stop(3)], stop(3)),
        ([stop(3), stop(9, upper=99.0)], [stop(9, upper=99.0), stop(3)]),
        (stop(3), ft.EarlyStop("loss", patience=3, mode="min")),
    ],
)
@pytest.mark.parametrize("cut", [3, 6])
def test_patience_goes_on_in_another_place(
    first: Any, second: Any, cut: int, tmp_path: Path
) -> None:
    whole = go("12 epochs", stop(3), None)
    go(f"{cut} epochs", first, tmp_path)
    run = go("12 epochs", second, tmp_path, begin=cut, save_every="1 epoch")
    assert run.reason == whole.reason
    assert run.detail.removeprefix("eval/") == whole.detail.removeprefix("eval/")
    assert run.state.counters.step == whole.state.counters.step


def test_a_rule_that_would_have_ended_the_run_ends_it_with_a_warning(tmp_path: Path) -> None:
    go("8 epochs", stop(9), tmp_path)
    with pytest.warns(errors.ResumeWarning, match="at step 8, and by the early_stop of this call"):
        run = go("12 epochs", stop(2), tmp_path)
    assert (run.reason, run.new_steps) == ("early_stop", 0)


def test_a_plateau_that_is_over_ends_no_run(tmp_path: Path) -> None:
    go("5 epochs", stop(9), tmp_path)
    assert go("6 epochs", stop(2), tmp_path, begin=5).new_steps == 1


def test_a_rule_that_is_given_again_begins_from_scratch(tmp_path: Path) -> None:
    go("12 epochs", stop(2), tmp_path)
    go("5 epochs", None, tmp_path, begin=4)
    run = go("12 epochs", stop(2), tmp_path, begin=5)
    assert (run.reason, run.state.counters.step) == ("early_stop", 8)


def test_a_rule_of_another_kind_begins_from_scratch(tmp_path: Path) -> None:
    ended = go("12 epochs", stop(2), tmp_path)
    run = go("12 epochs", Overfit(patience=9), tmp_path, begin=ended.state.counters.step)
    assert run.reason == "max_epochs"


def test_a_metric_object_says_the_mode_of_a_rule_that_is_changed(tmp_path: Path) -> None:
    shares = [0.1, 0.5, 0.4, 0.3, 0.2, 0.6, *[0.5] * 9]

    def train(until: str, patience: int, directory: Path | None, begin: int = 0) -> ft.Run:
        values = iter(shares[begin:])

        def evaluate(model: nn.Module, part: Any) -> ft.Loss:
            share = torch.tensor(next(values) * 100)
            found = {"a1": ft.metrics.Accuracy(share, torch.tensor(100.0))}
            return ft.Loss(torch.tensor(1.0), metrics=found)

        loss = lambda model, part: model(part).square().mean()  # noqa: E731
        made = ft.program(lambda: nn.Linear(1, 1), loss, ft.optim.SGD(lr=0.1), evaluate=evaluate)
        rule = ft.EarlyStop("a1", patience=patience)
        options: dict[str, Any] = {"eval_data": [X], "early_stop": rule, "directory": directory}
        return ft.fit(made, [X], until=until, **options)

    assert train("12 epochs", 2, tmp_path).state.counters.step == 4
    run = train("12 epochs", 5, tmp_path, begin=4)
    assert run.state.counters.step == train("12 epochs", 5, None).state.counters.step == 11


def test_members_go_on_by_their_own_evaluations(tmp_path: Path) -> None:
    pop = ft.population(of_members(), {"lr": [0.01, 1e6, 0.1]})
    data = [batch(number) for number in range(3)]

    def train(until: str, rule: Any, directory: Path | None) -> ft.Run:
        options: dict[str, Any] = {"early_stop": rule, "directory": directory, "eval_data": data}
        return ft.fit(pop, data, until=until, **options)

    rule = ft.EarlyStop(patience=3)
    whole = train("9 epochs", rule, None)
    train("3 epochs", ft.EarlyStop(patience=9), tmp_path)
    assert train("9 epochs", [rule], tmp_path).history.rows == whole.history.rows


def test_members_that_have_stopped_stay_so_with_a_warning(tmp_path: Path) -> None:
    pop = ft.population(of_members(), {"lr": [0.01, 1e6, 0.1]})
    data = [batch(number) for number in range(3)]
    options: dict[str, Any] = {"eval_data": data, "directory": tmp_path}
    run = ft.fit(pop, data, until="2 epochs", early_stop=[Halving(least=2)], **options)
    assert len(pop.running(run.state)) == 2
    with pytest.warns(errors.ResumeWarning, match="1 members of the run .* have stopped"):
        run = ft.fit(pop, data, until="3 epochs", early_stop=ft.EarlyStop(patience=99), **options)
    assert len(pop.running(run.state)) == 2
