"""The law of resumption: a run cut anywhere, any number of times, ends in the same bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ends import CutAt
from hypothesis import given
from hypothesis import strategies as st
from recipes import programs
from tally import Tally

import functrain as ft
from functrain import tree

STEPS = 10


def run(program: ft.Program, case: Any, directory: Path, cuts: list[int]) -> ft.Run:
    data = [case.batch(seed, 2 + seed % 3) for seed in range(5)]
    evaluation = [case.batch(100, 4), case.batch(101, 3)]
    listeners: list[list[Any]] = [*([CutAt(cut)] for cut in cuts), []]
    for each in listeners:
        result = ft.fit(
            program,
            data,
            until=f"{STEPS} steps",
            eval_data=evaluation,
            eval_every="2 steps",
            save_every="3 steps",
            directory=ft.Checkpoints(directory, keep_last=2),
            early_stop=ft.EarlyStop("loss", patience=50),
            listeners=each,
        )
    return result


@given(
    made=programs(),
    cuts=st.lists(st.integers(1, STEPS - 1), max_size=3, unique=True).map(sorted),
)
def test_cuts_leave_no_trace(made: tuple[Any, ft.Program], cuts: list[int], tally: Tally) -> None:
    case, program = made
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        straight = run(program, case, Path(one), [])
        resumed = run(program, case, Path(two), cuts)
        assert tree.diff(straight.state, resumed.state) == []
        assert tree.diff(straight.history.rows, resumed.history.rows) == []
        assert straight.best == resumed.best
        logs = [Path(each, "metrics.jsonl").read_bytes() for each in (one, two)]
        assert logs[0] == logs[1]
    tally.resumptions += bool(cuts)
