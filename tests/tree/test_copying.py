"""A copy shares no memory with what it was made from."""

from __future__ import annotations

import numpy as np
import torch

import functrain as ft
from functrain import tree


def test_nothing_that_changes_is_shared() -> None:
    ours = {
        "params": {"w": torch.zeros(2), "b": torch.zeros(1)},
        "list": [torch.zeros(1), 1, "x", None],
        "array": np.zeros((2, 3), order="F"),
        "number": np.float32(1),
    }
    theirs = ft.copy(ours)
    for _, leaf in tree.items(ours):
        if isinstance(leaf, torch.Tensor):
            leaf.add_(1)
        elif isinstance(leaf, np.ndarray):
            leaf += 1
    assert [int(leaf.sum()) for _, leaf in tree.items(theirs["params"])] == [0, 0]
    assert int(theirs["list"][0]) == 0
    assert not theirs["array"].any()
    assert theirs["array"].flags.f_contiguous
    assert theirs["number"] == 1
    ours["list"].append(2)
    assert len(theirs["list"]) == 4
