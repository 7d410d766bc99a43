"""Row 45: functions that inspect a run and draw random numbers do not change it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from small_runs import CutAt, X, fit, program

import functrain as ft
from functrain import tree
from functrain.errors import ListenerError, LogError
from functrain.listeners import Every, SampleText

pytestmark = pytest.mark.row(45)


def write(program: ft.Program, state: ft.TrainState) -> str:
    """Return a text that depends on the weights and on every random generator."""
    drawn = torch.rand(()).item() + random.random() + np.random.rand()
    with program.evaluating(state, "ema") as module:
        return f"{module(X[:2]).sum().item() + drawn:.12f}"


@pytest.mark.parametrize("every", [None, "1 step", "0.5 epochs"])
def test_sampling_does_not_change_training_bitwise(tmp_path: Path, every: str | None) -> None:
    samples = SampleText(program(), write, every=every, path=tmp_path / "samples.jsonl")
    generators = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()
    with_it = fit([samples], directory=tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert random.getstate() == generators[1]
    assert np.random.get_state()[1].tobytes() == generators[2]
    without = fit(directory=tmp_path / "b")
    assert tree.diff(with_it.state, without.state) == []
    logs = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in "ab"]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("every", "steps"), [(None, [5, 10, 15, 20]), ("6 steps", [6, 12, 18]), ("1 epoch", [8, 16])]
)
def test_a_resumed_run_samples_the_same_texts(
    tmp_path: Path, every: str | None, steps: list[int]
) -> None:
    def samples(name: str) -> SampleText:
        return SampleText(program(), write, every=every, path=tmp_path / name)

    fit([samples("straight")], directory=tmp_path / "a")
    for cut in (6, 10, 13):
        fit([samples("cut"), CutAt(cut)], directory=tmp_path / "b")
    fit([samples("cut")], directory=tmp_path / "b")
    assert (tmp_path / "straight").read_bytes() == (tmp_path / "cut").read_bytes()
    lines = [orjson.loads(line) for line in (tmp_path / "cut").read_bytes().splitlines()]
    assert [line["step"] for line in lines] == steps
    assert len({line["text"] for line in lines}) == len(steps)


def test_without_a_file_texts_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    fit([SampleText(program(), lambda program, state: "to be\nor not")], until="5 steps")
    assert capsys.readouterr().out == "step 5: to be\nor not\n"


def test_a_file_with_other_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "poems.txt").write_text("to be\n")
    with pytest.raises(ListenerError, match="is not overwritten") as caught:
        fit([SampleText(program(), write, path=tmp_path / "poems.txt")])
    assert isinstance(caught.value.__cause__, LogError)


def test_any_function_runs_at_an_interval_and_may_end_the_run() -> None:
    seen: list[int] = []

    def look(state: ft.TrainState) -> Any:
        seen.append(state.counters.step)
        return ft.Stop("seen enough") if len(seen) == 2 else "not used"

    run = fit([Every("4 steps", look)])
    assert seen == [4, 8]
    assert (run.reason, run.detail) == ("listener", "seen enough")
