"""The short form of ``make torture``: a disturbed run ends like an undisturbed one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from torture import Torture


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.row(32)
@pytest.mark.row(54)
def test_a_tortured_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    torture = Torture(tmp_path, seed=2)
    for number in itertools.count():  # a busy machine may end a run before it is disturbed
        torture.round(number, most=3)
        if torture.problems or torture.counts.total() >= 2:
            break
    assert torture.problems == []
