"""Rules by which the buffers of the parts of a step are combined."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import functrain as ft
from functrain.distributed.buffers import by_rule


class TestByRule:
    def test_floats_are_averaged_and_integers_add_up(self) -> None:
        floats = by_rule("x", torch.zeros(2), [torch.ones(2), torch.zeros(2)], None)
        assert floats.tolist() == [0.5, 0.5]
        counts = by_rule("n", torch.tensor(5), [torch.tensor(6), torch.tensor(8)], None)
        assert counts.item() == 9

    def test_a_float_that_counts_adds_up_where_asked(self) -> None:
        assert by_rule("n", torch.tensor(5.0), [torch.tensor(6.0)] * 2, "sum").item() == 7.0

    def test_the_first(self) -> None:
        assert by_rule("x", torch.tensor(True), [torch.tensor(False)], "first").item() is False

    @pytest.mark.parametrize(
        ("old", "new", "rule"),
        [
            (torch.tensor(True), torch.tensor(False), None),
            (torch.tensor(1), torch.tensor(2), "mean"),
            (torch.zeros(2), torch.zeros(3), None),
        ],
    )
    def test_what_has_no_rule_is_an_error(self, old: Tensor, new: Tensor, rule: Any) -> None:
        with pytest.raises(ft.errors.UnsupportedError, match=r"buffer 'seen' .*functrain\.sharded"):
            by_rule("seen", old, [new, old], rule)
