"""``fit`` on several real processes: one history, one directory, the bytes of one process."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import rank_runs
import ranks
import torch
from sharded_runs import made

import functrain as ft
from functrain.distributed import connections, current

SHARDS = ["none", "optimizer", "all"]


@pytest.mark.row(57)
@pytest.mark.sweep
@pytest.mark.parametrize("n", [2, 4])
def test_ranks_and_placements_end_in_the_same_run(tmp_path: Path, n: int) -> None:
    alone = rank_runs.fitted(tmp_path / "alone")
    assert alone["reason"] == ("max_steps", "reached 9 steps", 9)
    folder = tmp_path / "ranks"
    found = ranks.run(rank_runs.resumed_often, n, folder, SHARDS, "9 steps")
    assert found == [[alone] * 3] * n
    for shard in SHARDS:
        assert rank_runs.files(folder / shard) == rank_runs.files(tmp_path / "alone")


@pytest.mark.row(57)
def test_other_ranks_go_on_with_the_same_bytes(tmp_path: Path) -> None:
    straight = rank_runs.fitted(tmp_path / "straight")
    for n, shard, until in (
        (3, "all", "2 steps"),
        (1, "none", "5 steps"),
        (2, "optimizer", "7 steps"),
    ):
        ranks.run(rank_runs.fitted, n, tmp_path / "parts", shard, until)
    found = ranks.run(rank_runs.fitted, 4, tmp_path / "parts", "none")
    for each in found:
        assert each["state"] == straight["state"]
        assert each["rows"] == rank_runs.fitted(tmp_path / "parts")["rows"]


def plain(directory: Path) -> None:
    ft.fit(made("Tiny"), rank_runs.data(), until="2 steps", directory=directory)


def test_a_plain_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in ranks.outcomes(plain, 2, tmp_path / "run"):
        assert isinstance(error, ft.errors.ConfigurationError)
        assert "functrain.sharded" in str(error)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ft.errors.ConfigurationError, match=r"2 processes .* functrain\.sharded"):
        plain(tmp_path / "run")


def test_only_a_loop_over_steps_needs_a_sharded_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    program, data = made("Tiny"), rank_runs.held_out()
    state = program.init(0)
    with pytest.raises(ft.errors.ConfigurationError, match=r"iterate: 2 processes .*\.sharded"):
        next(ft.iterate(program, state, data))
    # These have no effects, and every process gets the same.
    assert program.train_step(state, data[0])[0].counters.step == 1
    assert ft.evaluate(program, state, data)["loss"] > 0


@pytest.mark.sweep("number")
@pytest.mark.parametrize("chosen", [[1], [0], [0, 1, 2]])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_any_rank_stops_all_after_one_step(
    tmp_path: Path, chosen: list[int], number: int
) -> None:
    found = ranks.run(rank_runs.signalled, 3, tmp_path / "run", chosen, number)
    assert found == [found[0]] * 3
    reason, detail, steps = found[0]["reason"]
    assert (reason, steps) == ("interrupted", 4)
    assert detail == f"received {signal.Signals(number).name}"
    assert ft.Checkpoints(tmp_path / "run").steps()[-1] == 4
    rank_runs.fitted(tmp_path / "run")
    rank_runs.fitted(tmp_path / "straight")
    assert rank_runs.newest(tmp_path / "run") == rank_runs.newest(tmp_path / "straight")


def test_a_signal_that_a_launcher_sends_again_does_not_hurry_the_save(tmp_path: Path) -> None:
    found = ranks.run(rank_runs.signalled, 2, tmp_path / "run", [0, 1], signal.SIGINT, 3)
    assert [each["reason"][0] for each in found] == ["interrupted"] * 2
    assert ft.Checkpoints(tmp_path / "run").steps()[-1] == 4


class Raising:
    """Raises on one rank."""

    def __init__(self, rank: int) -> None:
        self.rank, self.every_rank = rank, rank > 0

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 4 and rank_runs.rank() == self.rank:
            raise ValueError("no more")


def listening(directory: Path, rank: int) -> None:
    rank_runs.fitted(directory, listeners=[Raising(rank)])


class Breaking:
    """Data whose fourth batch cannot be read on one rank."""

    def __iter__(self) -> Any:
        for index, batch in enumerate(rank_runs.batches("Tiny", [8] * 6)):
            if index == 3 and rank_runs.rank() == 1:
                raise OSError("a bad sector")
            yield batch


def reading(directory: Path, rank: int) -> None:
    program = rank_runs.program()
    ft.fit(program, Breaking(), until="6 steps", save_every="2 steps", directory=directory)


def losing(directory: Path, rank: int, only: str = "loss") -> None:
    """The fourth loss, or the second evaluation, raises on one rank."""
    plain, calls = made("Tiny"), {"loss": 0, "evaluate": 0}

    def raising(name: str) -> Any:
        def function(model: Any, batch: Any) -> Any:
            calls[name] += 1
            if name == only and rank_runs.rank() == rank and calls[name] >= 4:
                raise ArithmeticError(f"in {name}")
            return plain.recipe.loss(model, batch)

        return function

    recipe = {"loss": raising("loss"), "evaluate": raising("evaluate")}
    program = ft.program(lambda: torch.nn.Linear(16, 3), optimizer=ft.optim.SGD(0.1), **recipe)
    rank_runs.fitted(directory, made_by=ft.sharded(program, parts=4))


def measuring(directory: Path, rank: int) -> None:
    losing(directory, rank, "evaluate")


@pytest.mark.parametrize(
    ("work", "rank", "text"),
    [
        (listening, 0, "no more"),
        (listening, 2, "no more"),
        (reading, 1, "a bad sector"),
        (losing, 1, "in loss"),
        (measuring, 2, "in evaluate"),
    ],
)
def test_an_exception_on_one_rank_ends_all(tmp_path: Path, work: Any, rank: int, text: str) -> None:
    for other, error in enumerate(ranks.outcomes(work, 3, tmp_path / "run", rank)):
        assert text in str(error)
        assert isinstance(error, ft.errors.RankFailedError) == (other != rank)
        assert other == rank or f"rank {rank}" in str(error)
    assert ft.Checkpoints(tmp_path / "run").steps()[-1] < (9 if work is measuring else 4)


class Sleeping:
    """Sleeps on rank 1 until the other ranks have ended."""

    every_rank = True

    def __init__(self, ended: Path) -> None:
        self.ended = ended

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        if event.state.counters.step == 1:  # a rank takes seconds to join on a busy machine
            connections.set_timeout(current().group, timedelta(seconds=5))
        if event.state.counters.step == 2 and rank_runs.rank() == 1:
            while len(list(self.ended.iterdir())) < 2:
                time.sleep(0.05)


def sleeping(directory: Path, ended: Path) -> None:
    program = ft.sharded(made("Tiny"), parts=4)
    try:
        rank_runs.fitted(directory, listeners=[Sleeping(ended)], made_by=program)
    finally:
        (ended / str(rank_runs.rank())).touch()


def test_a_rank_that_hangs_is_named_with_the_place_where_the_others_wait(tmp_path: Path) -> None:
    (tmp_path / "ended").mkdir()
    first, second, third = ranks.outcomes(sleeping, 3, tmp_path / "run", tmp_path / "ended")
    assert isinstance(second, ft.errors.RankFailedError)  # once it goes on
    for error in (first, third):
        assert isinstance(error, ft.errors.RankFailedError)
        text = "rank 1 gave no answer within 5 s, while ranks 0, 2 wait in functrain's"
        assert str(error).startswith(text), error
        assert "in rank_runs.py:" in str(error)


class Stopping:
    """Asks for the end on rank 0, and adds a metric there."""

    def on_batch_end(self, event: ft.events.BatchEnd) -> Any:
        return ft.Stop("enough") if event.state.counters.step == 3 else {"extra": 1.0}


def stopping() -> dict[str, Any]:
    return rank_runs.fitted(None, listeners=[Stopping()])


def test_a_listener_of_rank_0_stops_all_and_adds_to_the_rows_of_all() -> None:
    alone = stopping()
    assert alone["reason"] == ("listener", "enough", 3)
    assert [row.get("extra") for row in alone["rows"]] == [1.0, 1.0, None]
    assert ranks.run(stopping, 2) == [alone] * 2


def nonfinite() -> dict[str, Any]:
    made_by = rank_runs.program("all", model="MLP")
    run = ft.fit(made_by, rank_runs.poisoned(), until="6 steps")
    return {"reason": run.reason, "detail": run.detail, "step": run.state.counters.step}


@pytest.mark.filterwarnings("ignore::functrain.errors.NonFiniteWarning")
def test_a_loss_that_is_not_finite_ends_the_run_on_all_ranks() -> None:
    alone = nonfinite()
    assert (alone["reason"], alone["step"]) == ("nonfinite", 2)
    assert ranks.run(nonfinite, 2) == [alone] * 2


def different(what: str) -> None:
    options: dict[str, Any] = {"made_by": rank_runs.program()}
    rank = rank_runs.rank()
    if what == "recipe":
        options["made_by"] = ft.sharded(made("Tiny", clip_norm=0.5 + rank), parts=4)
    elif what == "until":
        options["until"] = f"{5 + rank} steps"
    else:
        options["made_by"] = rank_runs.drawn(rank)
    rank_runs.fitted(None, **options)


@pytest.mark.parametrize(
    ("what", "text"), [("recipe", "clip_norm"), ("until", "until"), ("weights", "state before")]
)
def test_ranks_with_different_runs_are_named(what: str, text: str) -> None:
    for error in ranks.outcomes(different, 2, what):
        assert isinstance(error, ft.errors.RankMismatchError)
        assert text in str(error)
        assert "rank 1" in str(error)


def timed(directory: Path) -> dict[str, Any]:
    limits: Any = ["0.02 minutes", "100000 steps"]
    found = rank_runs.fitted(directory, until=limits, save_every="0.005 minutes")
    return {"reason": found["reason"], "state": found["state"]}


def test_rank_0_has_the_clock(tmp_path: Path) -> None:
    found = ranks.run(timed, 2, tmp_path / "run")
    assert found[0] == found[1]
    assert found[0]["reason"][0] == "max_time"
