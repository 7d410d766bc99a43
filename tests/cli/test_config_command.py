"""``functrain config check | show``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.row(46)
Run = Callable[..., Any]


def test_check_says_ok_on_one_line_and_writes_nothing(
    functrain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = functrain("config", "check", "digits", "seeds=[0, 1]", "program.precision=bf16")
    assert ended.out == (
        "OK digits: ConvNet (58,474 trained parameters), Groups, bf16, until 30 epochs, "
        "evaluated on eval, seeds 0, 1 -> runs/digits\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_check_finds_errors_of_building_objects(functrain: Run) -> None:
    assert functrain("config", "check", "digits", "data.batch_size=0").refuses("data: Batches")


def test_show_prints_the_composed_and_resolved_configuration(functrain: Run) -> None:
    shown = yaml.safe_load(functrain("config", "show", "digits", "seed=3").out)
    assert (shown["directory"], shown["data"]["seed"]) == ("runs/digits", 3)
    raw = yaml.safe_load(functrain("config", "show", "digits", "--unresolved").out)
    assert (raw["directory"], raw["data"]["seed"]) == ("runs/${name}", "${seed}")
