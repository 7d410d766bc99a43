"""The evaluation of a few batches before the first step: errors at once, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_runs import Recorder, batches, columns, loss, program
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError, MissingMetricError

TRAINED = "trained"


def loader(shuffle: bool = False) -> Any:
    generator = torch.Generator().manual_seed(1) if shuffle else None
    data: Any = TensorDataset(*columns())
    return DataLoader(data, 4, shuffle=shuffle, generator=generator)


def fitted(directory: Path | None = None, **options: Any) -> ft.Run:
    given = {"until": "2 epochs", "eval_data": batches(), "progress": False} | options
    made = given.pop("program", None) or program(ema=0.9)
    return ft.fit(made, given.pop("data", batches()), directory=directory, **given)


def counted(calls: list[int], fails: bool = False) -> Any:
    def evaluate(model: Any, batch: Any) -> ft.Loss:
        calls.append(len(batch[0]))
        if fails:
            raise ZeroDivisionError
        return loss(model, batch)

    return evaluate


class NoTraining:
    def on_batch_begin(self, event: Any) -> None:
        raise AssertionError(TRAINED)


@pytest.mark.parametrize("data", [batches, loader, lambda: loader(shuffle=True)])
def test_it_changes_no_bit_of_a_run(tmp_path: Path, data: Any) -> None:
    runs, seen = [], []
    for number in (0, 2):
        seen.append(Recorder())
        shared = data()
        runs.append(
            fitted(
                tmp_path / str(number),
                data=shared,
                eval_data=shared,
                sanity_batches=number,
                listeners=[seen[-1]],
            )
        )
    assert tree.diff(runs[0].state, runs[1].state) == []
    assert runs[0].history.rows == runs[1].history.rows
    files = [tmp_path / name / "metrics.jsonl" for name in ("0", "2")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert seen[0].names() == seen[1].names()


def test_an_error_in_the_evaluation_shows_before_the_first_step(tmp_path: Path) -> None:
    failing = program(evaluate=counted([], fails=True))
    with pytest.raises(ZeroDivisionError) as caught:
        fitted(tmp_path / "run", program=failing, sanity_batches=1, listeners=[NoTraining()])
    assert any("before training" in note for note in caught.value.__notes__)
    assert ft.Checkpoints(tmp_path / "run").steps() == []  # the corrected call begins from scratch


def test_it_reads_no_more_batches_than_asked_of_each_set_and_kind_of_weights() -> None:
    calls: list[int] = []
    few = ft.Evaluation(batches(), batches=1, weights="params", every="9 epochs")
    sets = {"few": few, "all": batches()}
    stopping = [type("Stop", (), {"on_batch_end": lambda self, event: ft.Stop()})()]
    options = {"until": "9 epochs", "eval_every": "9 epochs", "listeners": stopping}
    made = program(ema=0.9, evaluate=counted(calls))
    fitted(program=made, eval_data=sets, sanity_batches=2, **options)
    assert calls == [4] * (1 + 2 * 2)


def test_a_monitored_metric_that_is_not_given_is_an_error_before_training() -> None:
    with pytest.raises(MissingMetricError, match="eval/accuracy"):
        fitted(
            sanity_batches=1,
            early_stop=ft.EarlyStop("eval/acuracy", patience=2, mode="max"),
            listeners=[NoTraining()],
        )


def test_nothing_is_evaluated_when_nothing_is_left_to_train(tmp_path: Path) -> None:
    calls: list[int] = []
    fitted(tmp_path, program=program(evaluate=counted([])))
    fitted(tmp_path, program=program(evaluate=counted(calls)), sanity_batches=1)
    assert calls == []


def test_a_resumed_run_checks_too_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole")
    fitted(tmp_path / "cut", until="4 steps", sanity_batches=1)
    resumed = fitted(tmp_path / "cut", sanity_batches=2)
    assert tree.diff(whole.state, resumed.state) == []
    rows = [row for row in resumed.history.rows if row["step"] != 4]  # evaluated at its own end
    assert rows == [row for row in whole.history.rows if row["step"] != 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_data": None}, "eval_data"),
        ({"sanity_batches": -1}, "sanity_batches"),
        ({"eval_data": iter([columns()])}, "read only once"),
    ],
)
def test_what_cannot_be_checked_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fitted(**{"sanity_batches": 2} | options)
