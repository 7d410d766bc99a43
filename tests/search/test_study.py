"""Trials of a study that several processes share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from functrain.search import study as study_module
from functrain.search.space import read_space
from functrain.search.study import TrialQueue, open_study
from functrain.search.trials import TrialResult

SPACE = read_space({"lr": [0.1, 0.2]})


def queue(directory: Path) -> TrialQueue:
    import optuna

    study = open_study(directory, "minimize", optuna.pruners.NopPruner())
    return TrialQueue(study, directory, {"name": "RandomSampler"}, 3, SPACE)


@pytest.mark.row(47)
def test_a_trial_that_ends_meanwhile_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, real = queue(tmp_path), queue(tmp_path), study_module.locked
    with first.next() as drawn:
        assert drawn is not None
        trial = drawn.trial
    finished: list[int] = []

    @contextlib.contextmanager
    def late(directory: Path) -> Iterator[None]:
        """Let the other process finish the trial, and release it."""
        if not finished:
            finished.append(trial.number)
            first.tell(trial, TrialResult("complete", "", (1.0,)))
        with real(directory):
            yield

    monkeypatch.setattr(study_module, "locked", late)
    with second.next() as mine:
        assert mine is not None
        assert (finished, mine.trial.number) == ([0], 1)
    with real(tmp_path / "trial-0000"):
        pass  # no process holds it
