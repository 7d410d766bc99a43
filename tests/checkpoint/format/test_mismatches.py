"""Row 39: mismatches are reported by path, all at once, before any payload is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from functrain import tree
from functrain.checkpoint import Anything, load, save
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointMismatchError


@attrs.frozen(eq=False)
class Old:
    value: Any


@attrs.frozen(eq=False)
class New:
    value: Any


SAVED: dict[str, Any] = {
    "params": {
        "encoder.0.weight": torch.zeros(4, 2),
        "encoder.0.bias": torch.zeros(4),
        "head.weight": torch.zeros(2, 4),
    },
    "optimizer": {"step": torch.tensor(0.0), "slots": [torch.zeros(3), torch.zeros(3)]},
    "ema": None,
    "record": Old(1),
}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = save(tmp_path / "c", SAVED)

    def unexpected(*_: object) -> None:
        raise AssertionError("the payload was read")

    monkeypatch.setattr(reading, "read", unexpected)
    return path


@pytest.mark.row(39)
def test_all_problems_at_once(saved: Path) -> None:
    like = {
        "params": {
            "encoder.0.weight": torch.zeros(4, 3),
            "encoder.0.bias": torch.zeros(4, dtype=torch.float16),
            "head.wieght": torch.zeros(2, 4),
        },
        "optimizer": {"step": 0.0, "slots": [torch.zeros(3)], "more": 1},
        "ema": {"decay": 0.1},
        "record": New(1),
    }
    with pytest.raises(CheckpointMismatchError) as caught:
        load(saved, like)
    assert caught.value.problems == [
        "params.encoder.0.weight: expected shape [4, 3], the checkpoint has [4, 2]",
        "params.encoder.0.bias: expected float16, the checkpoint has float32",
        "params.head.wieght: missing in the checkpoint (it has 'head.weight')",
        "params.head.weight: unexpected, only in the checkpoint",
        "optimizer.step: expected a scalar, the checkpoint has a tensor",
        "optimizer.slots.1: unexpected, only in the checkpoint",
        "optimizer.more: missing in the checkpoint",
        "ema: expected a dict, the checkpoint has a scalar",
        f"record: expected a {__name__}.New, the checkpoint has a {__name__}.Old",
    ]
    assert str(saved) in str(caught.value)
    assert "9 places" in str(caught.value)


def test_long_lists_are_cut_in_the_message_only() -> None:
    error = CheckpointMismatchError("c", [f"problem {i}" for i in range(100)])
    assert "60 more" in str(error)
    assert len(error.problems) == 100


@pytest.mark.parametrize("marker", [Anything, Anything()])
def test_anything_stands_for_leaf_and_subtree(tmp_path: Path, marker: Any) -> None:
    path = save(tmp_path / "c", SAVED)
    like = SAVED | {"optimizer": marker, "ema": marker}
    assert tree.equal(load(path, like), SAVED)


def test_like_may_be_without_values(tmp_path: Path) -> None:
    path = save(tmp_path / "c", SAVED["params"])
    like = {name: value.to("meta") for name, value in SAVED["params"].items()}
    loaded = load(path, like)
    assert tree.equal(loaded, SAVED["params"])
    assert all(value.device.type == "cpu" for value in loaded.values())


def test_scalars_match_any_type_and_value(tmp_path: Path) -> None:
    path = save(tmp_path / "c", {"best": None, "seed": 3})
    assert load(path, like={"best": 0.5, "seed": 0}) == {"best": None, "seed": 3}
