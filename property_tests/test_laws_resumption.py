"""The law of resumption over recipes, models, kinds of data, evaluation sets, cuts and ways to cut.

A run that is cut anywhere, any number of times, ends in the bytes of the run that is never cut.
"""

from __future__ import annotations

import contextlib
import math
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
from described_runs import DATA, STEPS, Described, described, differences, fit
from ends import CutAt, FailsAt
from hypothesis import event, given
from hypothesis import strategies as st
from processes import forked
from trying import tried

import functrain as ft
from functrain.errors import ListenerError
from functrain.testing import Cut, check_resumes
from functrain.testing.strategies import Architecture, Case, cuts

UNSAVED = [kind for kind in DATA if kind != "own state"]
places = st.integers(1, STEPS - 1)


@pytest.mark.row(53)
@tried(90)
@given(run=described(UNSAVED), where=cuts(steps=STEPS))
def test_cuts_leave_no_trace(run: Described, where: list[Cut]) -> None:
    check_resumes(run, steps=STEPS, cuts=where)


@pytest.mark.row(32)
@tried(22)
@given(run=described(), where=st.sets(places, min_size=1, max_size=2))
def test_fresh_processes_leave_no_trace(run: Described, where: set[int]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        fit(run, one)
        for step in [*sorted(where), STEPS]:
            assert forked(fit, run, two, CutAt(step)) == 0
        assert differences(one, two) == []


@pytest.mark.row(32)
@tried(22)
@given(run=described(), deaths=st.lists(st.integers(1, 20), min_size=2, max_size=4))
def test_kills_at_any_event_leave_no_trace(run: Described, deaths: list[int]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        fit(run, one)
        ends = [forked(fit, run, two, FailsAt(death, kills=True)) for death in deaths]
        assert set(ends) <= {0, -signal.SIGKILL}
        assert forked(fit, run, two) == 0
        assert differences(one, two) == []
    event(f"{ends.count(-signal.SIGKILL)} kills")


@pytest.mark.row(38)
@tried(40)
@given(run=described(), errors=st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_exceptions_at_any_event_leave_no_trace(run: Described, errors: list[int]) -> None:
    # A listener's additions to a row are lost if another listener raises.
    run = attrs.evolve(run, counts=False)
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        fit(run, one)
        for error in errors:
            with contextlib.suppress(ListenerError):
                fit(run, two, FailsAt(error))
        fit(run, two)
        assert differences(one, two) == []


@pytest.mark.row(34)
@tried(50)
@given(run=described(), where=st.sets(places, min_size=1, max_size=3))
def test_every_step_is_in_the_log_once(run: Described, where: set[int]) -> None:
    with TemporaryDirectory() as place:
        for cut in [*sorted(where), STEPS]:
            result = fit(run, place, CutAt(cut))
        rows = ft.History.read(Path(place)).rows
    done = len(rows)
    assert [row["step"] for row in rows] == list(range(1, done + 1))
    assert [row["seen"] for row in rows] == list(range(1, done + 1))
    assert done == result.state.counters.step == STEPS or result.reason != "max_steps"
    for name, interval in (("eval", run.often), ("other", run.seldom)):
        measured = [row["step"] for row in rows if f"{name}/loss" in row]
        last = [done] if result.reason == "max_steps" and done % interval else []
        assert measured == [*range(interval, done + 1, interval), *last]
    losses = [row["eval/loss"] for row in rows if "eval/loss" in row]
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert result.best["value"] == min(finite, default=None)


@pytest.mark.row(30)
@tried(30)
@given(run=described(["own state", "Mixture"]), where=st.sets(places, min_size=1, max_size=3))
def test_loaders_with_a_state_resume(run: Described, where: set[int]) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        fit(run, one)
        for step in [*sorted(where), STEPS]:
            fit(run, two, CutAt(step))
        assert differences(one, two) == []


@pytest.mark.row(20)
@tried(30)
@given(where=st.sets(places, min_size=1, max_size=3), patience=st.integers(0, 1))
def test_a_plateau_resumes(where: set[int], patience: int) -> None:
    lr = ft.schedules.Plateau(lr=0.5, factor=0.5, patience=patience)
    case = Case(Architecture("vector"), {"optimizer": ft.optim.SGD(lr=lr)})
    check_resumes(Described(case, often=1, save=1), steps=STEPS, cuts=sorted(where))
