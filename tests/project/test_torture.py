"""The short form of ``make torture``: a disturbed run ends like an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest
from torture.driver import Torture, report, run


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.row(32)
@pytest.mark.row(54)
def test_a_tortured_run_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    torture = Torture(tmp_path, seed=0)
    run(torture, minutes=0.6, most=10, cases=("digits",))
    print(report(torture))
    assert torture.problems == []
    assert sum(torture.counts.values()) >= 3
