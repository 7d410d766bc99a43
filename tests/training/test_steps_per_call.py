"""``fit`` with several steps in one call: the same bytes as with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loop_runs import Recorder, batches, program

import functrain as ft
from functrain import optim, tree
from functrain.core.program import Program
from functrain.errors import ConfigurationError, NonFiniteWarning

PROGRAMS: dict[str, Any] = {
    "eager": lambda **options: program(**options),
    "compiled": lambda **options: ft.compiled(program(**options), backend="eager"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate": 2, "ema": 0.9},
    "plateau": {"optimizer": optim.SGD(ft.schedules.Plateau(0.1, patience=0, observes="step"))},
}


def fitted(way: str, options: str, directory: Path | None, **arguments: Any) -> ft.Run:
    given = {"eval_every": "5 steps", "save_every": "4 steps", "until": "3 epochs"} | arguments
    made = PROGRAMS[way](**OPTIONS[options])
    return ft.fit(
        made, batches(), eval_data=batches(), directory=directory, progress=False, **given
    )


@pytest.mark.sweep("way", "options")
@pytest.mark.parametrize("steps", [7, 2, 100])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("way", PROGRAMS)
def test_state_log_and_checkpoints_are_those_of_single_steps(
    tmp_path: Path, way: str, options: str, steps: int
) -> None:
    one = fitted(way, options, tmp_path / "one")
    several = fitted(way, options, tmp_path / "several", steps_per_call=steps)
    assert tree.diff(one.state, several.state) == []
    assert one.history.rows == several.history.rows
    files = [tmp_path / name / "metrics.jsonl" for name in ("one", "several")]
    assert files[0].read_bytes() == files[1].read_bytes()
    stores = [ft.Checkpoints(tmp_path / name) for name in ("one", "several")]
    assert stores[0].steps() == stores[1].steps()


def test_a_run_resumes_with_another_number(tmp_path: Path) -> None:
    whole = fitted("compiled", "plain", tmp_path / "whole")
    fitted("compiled", "plain", tmp_path / "cut", until="7 steps", steps_per_call=3)
    resumed = fitted("compiled", "plain", tmp_path / "cut", steps_per_call=5)
    assert tree.diff(whole.state, resumed.state) == []


def test_listeners_of_batches_see_each_state() -> None:
    one, several = Recorder(), Recorder()
    fitted("compiled", "plain", None, listeners=[one])
    fitted("compiled", "plain", None, listeners=[several], steps_per_call=7)
    assert one.names() == several.names()
    for first, second in zip(one.events, several.events, strict=True):
        assert tree.diff(first.state, second.state) == []


def test_most_steps_are_no_calls_of_train_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, of_class = [], Program.train_step

    def counting(self: Program, state: Any, batch: Any) -> Any:
        calls.append(state.counters.step)
        return of_class(self, state, batch)

    monkeypatch.setattr(Program, "train_step", counting)
    arguments = {"until": "12 steps", "eval_every": "100 steps", "save_every": "100 steps"}
    fitted("compiled", "plain", None, steps_per_call=4, **arguments)
    # The first of each call or epoch, and the first with the short batch that ends an epoch.
    assert calls == [0, 4, 5, 6, 10]


def test_a_loss_that_is_not_finite_leaves_the_last_good_state() -> None:
    data = [(x * (float("nan") if at == 9 else 1), y) for at, (x, y) in enumerate([*batches()] * 3)]
    with pytest.warns(NonFiniteWarning):
        runs = [
            ft.fit(PROGRAMS["compiled"](), data, until="12 steps", steps_per_call=k, progress=False)
            for k in (1, 100)
        ]
    assert [run.reason for run in runs] == ["nonfinite", "nonfinite"]
    assert tree.diff(runs[0].state, runs[1].state) == []
    assert runs[1].state.counters.step == 9


@pytest.mark.parametrize("steps", [0, 1.5, "4"])
def test_a_number_of_steps_is_a_whole_number(steps: Any) -> None:
    with pytest.raises(ConfigurationError, match="steps_per_call: expected"):
        fitted("eager", "plain", None, steps_per_call=steps)
