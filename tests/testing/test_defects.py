"""The table of planted defects is true: each can still be planted, and a law notices it."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from property_tests.defects.planting import ROOT, DefectError, changed, outcome, planted
from property_tests.defects.table import DEFECTS

FEW = ("NaN is the best value", "a fork shares its memory", "micro-batches weigh alike")


def test_every_defect_can_be_planted() -> None:
    assert len({defect.name for defect in DEFECTS}) == len(DEFECTS)
    for defect in DEFECTS:
        text = (ROOT / "functrain" / defect.file).read_text()
        assert changed(defect, text) != text, defect.name
        compile(changed(defect, text), defect.file, "exec")


def test_every_law_of_the_table_is_there() -> None:
    for defect in DEFECTS:
        file, _, test = defect.law.partition("::")
        assert f"\ndef {test}(" in (ROOT / file).read_text(), defect.name


def test_a_defect_whose_text_is_gone_is_an_error() -> None:
    gone = attrs.evolve(DEFECTS[0], changes=(("no such text", ""),))
    with pytest.raises(DefectError, match="got 0 times"):
        changed(gone, "something else")


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("name", FEW)
def test_a_law_notices_the_defect(name: str, tmp_path: Path) -> None:
    [defect] = [each for each in DEFECTS if each.name == name]
    assert outcome(planted(defect, tmp_path.resolve()), [defect.law]).failed == 1


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("names", [FEW[:1], FEW[1:]], ids=len)
def test_the_laws_hold_without_a_defect(names: tuple[str, ...], tmp_path: Path) -> None:
    laws = [defect.law for defect in DEFECTS if defect.name in names]
    found = outcome(planted(None, tmp_path.resolve()), laws)
    assert (found.failed, found.passed) == (0, len(names)), found.output
