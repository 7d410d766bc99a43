"""``restore_best`` in a run that goes on from another one, which holds the best state so far."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import errors

X = torch.linspace(-1, 1, 8).reshape(4, 2)
VALUES = (3.0, 1.0, 2.0, 4.0, 5.0, 6.0)


def go(
    until: str, directory: Path | None, values: Iterator[float], lr: float = 0.1, **options: Any
) -> ft.Run:
    def evaluate(model: nn.Module, part: Any) -> ft.Loss:
        return ft.Loss(torch.tensor(next(values)))

    loss = lambda model, part: model(part).square().mean()  # noqa: E731
    made = ft.program(lambda: nn.Linear(2, 1), loss, ft.optim.Adam(lr=lr), evaluate=evaluate)
    store = directory and ft.Checkpoints(directory, keep_last=1, monitor="eval/loss")
    given: dict[str, Any] = {"eval_data": [X], "directory": store, "restore_best": True}
    return ft.fit(made, [X], until=until, **{**given, **options})


@pytest.fixture
def whole() -> ft.Run:
    return go("6 epochs", None, iter(VALUES))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    go("4 epochs", tmp_path / "parent", iter(VALUES))
    return tmp_path / "parent"


def rest() -> Iterator[float]:
    return itertools.islice(VALUES, 4, None)


@pytest.mark.parametrize("of", ["run", "checkpoint"])
@pytest.mark.parametrize("own", [None, "fork"])
def test_is_the_best_of_the_parent(
    of: str, own: str | None, parent: Path, whole: ft.Run, tmp_path: Path
) -> None:
    origin = parent / "step-00000004" if of == "checkpoint" else parent
    directory = own and tmp_path / own
    run = go("6 epochs", directory, rest(), resume=origin)
    assert run.best == whole.best == {"value": 1.0, "step": 2}
    assert ft.tree.equal(run.state, whole.state)
    if directory:
        for _ in range(2):  # the same call again, and the run by itself
            again = go("6 epochs", directory, rest(), resume=origin)
            assert (again.new_steps, ft.tree.equal(again.state, whole.state)) == (0, True)
            origin = directory


def test_is_the_best_of_an_ancestor(parent: Path, whole: ft.Run, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    go("5 epochs", first, rest(), resume=parent)
    run = go("6 epochs", second, iter([6.0]), resume=first)
    assert ft.tree.equal(run.state, whole.state)
    assert ft.tree.equal(go("6 epochs", second, rest()).state, whole.state)


@pytest.mark.parametrize("own", [None, "fork"])
def test_is_the_best_of_the_fork_where_that_is_better(
    own: str | None, parent: Path, tmp_path: Path
) -> None:
    run = go("6 epochs", own and tmp_path / own, iter([0.5, 9.0]), resume=parent)
    assert (run.best["step"], run.state.counters.step) == (5, 5)


def test_is_the_state_that_the_fork_began_with(tmp_path: Path) -> None:
    go("2 epochs", tmp_path / "parent", iter(VALUES))
    run = go("4 epochs", None, iter(VALUES[2:]), resume=tmp_path / "parent")
    assert run.state.counters.step == 2


@pytest.mark.parametrize("own", [None, "fork"])
@pytest.mark.parametrize("lost", ["pruned", "another run"])
def test_begins_from_scratch_with_a_warning_where_it_is_lost(
    own: str | None, lost: str, parent: Path, tmp_path: Path
) -> None:
    shutil.rmtree(parent / "step-00000002")
    if lost == "another run":
        go("2 epochs", tmp_path / "other", iter([9.0, 8.0]))
        (tmp_path / "other" / "step-00000002").rename(parent / "step-00000002")
    with pytest.warns(errors.ResumeWarning, match="no checkpoint holds the best state .* step 2"):
        run = go("6 epochs", own and tmp_path / own, iter([5.0, 6.0]), resume=parent)
    assert (run.best["step"], run.state.counters.step) == (5, 5)


def test_is_an_error_where_it_is_lost_and_nothing_is_left_to_train(parent: Path) -> None:
    shutil.rmtree(parent / "step-00000002")
    before = sorted(parent.rglob("*"))
    with pytest.raises(errors.NoCheckpointError, match="Leave restore_best out"):
        go("4 epochs", parent, rest())
    assert sorted(parent.rglob("*")) == before
    assert go("4 epochs", parent, rest(), restore_best=False).state.counters.step == 4
