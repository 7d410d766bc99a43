"""The short form of ``make torture``: a disturbed run ends like an undisturbed one."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from torture.driver import Torture, report


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.row(32)
@pytest.mark.row(54)
def test_a_tortured_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    torture = Torture(tmp_path, seed=0)
    for number in itertools.count():  # a busy machine may end a run before it is disturbed
        torture.round("digits", number, most=5, deadline=math.inf)
        if torture.problems or torture.counts.total() >= 3:
            break
    print(report(torture))
    assert torture.problems == []
