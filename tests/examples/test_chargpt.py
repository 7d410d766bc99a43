"""The text of the example: how long it has to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from functrain import errors
from functrain.examples import chargpt


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return tmp_path / "text.txt"


@pytest.mark.parametrize(("length", "least"), [(64, 73), (4, 6), (9, 12)])
def test_training_needs_a_window_in_nine_tenths(text: Path, length: int, least: int) -> None:
    text.write_text("a" * least)
    assert len(chargpt.training_data(str(text), length)) == 1
    text.write_text("a" * (least - 1))
    with pytest.raises(errors.EmptyDatasetError, match=f"must have {least} to train"):
        chargpt.training_data(str(text), length)


@pytest.mark.parametrize(("length", "least"), [(64, 641), (4, 41)])
def test_evaluation_needs_a_window_in_one_tenth(text: Path, length: int, least: int) -> None:
    text.write_text("a" * least)
    assert len(chargpt.validation_data(str(text), length)) == 1
    text.write_text("a" * (least - 1))
    with pytest.raises(errors.EmptyDatasetError, match=f"{least} to evaluate"):
        chargpt.validation_data(str(text), length)


def test_an_empty_text(text: Path) -> None:
    text.write_text("")
    with pytest.raises(errors.EmptyDatasetError, match="the text has 0 characters"):
        chargpt.training_data(str(text))
