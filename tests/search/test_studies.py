"""Trials of a study that several processes share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from functrain.search import studies
from functrain.search.studies import Queue, open_study
from functrain.search.trials import Outcome


def queue(directory: Path) -> Queue:
    import optuna

    study = open_study(directory, "minimize", optuna.pruners.NopPruner())
    return Queue(study, directory, {"name": "RandomSampler"}, trials=3)


@pytest.mark.row(47)
def test_a_trial_that_ends_while_it_is_looked_at_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, real = queue(tmp_path), queue(tmp_path), studies.locked
    with first.next() as trial:
        pass
    told: list[int] = []

    @contextlib.contextmanager
    def late(directory: Path) -> Iterator[None]:
        """The process that holds the trial tells it, and then lets go of it."""
        if not told:
            told.append(trial.number)
            first.tell(trial, Outcome("complete", "", (1.0,)))
        with real(directory):
            yield

    monkeypatch.setattr(studies, "locked", late)
    with second.next() as mine:
        assert (told, mine.number) == ([0], 1)
    with real(tmp_path / "trial-0000"):
        pass  # nobody holds it
