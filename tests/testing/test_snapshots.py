"""Snapshots, what differs between two of them, and shared memory."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import nn

from functrain.testing import global_state
from functrain.testing.observed_calls import extents, overlaps
from functrain.testing.snapshots import changes, snapshot


class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value


@attrs.define
class Slotted:
    value: Any


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# A value, a change to it, and the description of the change.
CHANGED: list[tuple[Any, Any, str]] = [
    ({"a": 1}, lambda v: v.update(a=2), "v['a']: 1 became 2"),
    ({"a": 1}, lambda v: v.pop("a"), "v['a']: 1 is gone"),
    ([], lambda v: v.append(None), "v[0]: None is new"),
    (deque([1]), lambda v: v.appendleft(1), "v[1]: 1 is new"),
    ({"a": {1}}, lambda v: v["a"].add(2), "v['a']: {1} became {1, 2}"),
    (Holder(0.0), lambda v: setattr(v, "value", -0.0), "v.value: 0.0 became -0.0"),
    (Slotted([1]), lambda v: v.value.append(2), "v.value[1]: 2 is new"),
    (Holder(seeded()), lambda v: torch.rand(1, generator=v.value), "v.value: it was advanced"),
    (Holder(random.Random(0)), lambda v: v.value.random(), "v.value: it was advanced"),
    ([np.random.default_rng(0)], lambda v: v[0].random(), "v[0]: it was advanced"),
    ([np.random.RandomState(0)], lambda v: v[0].rand(), "v[0]: it was advanced"),
    (
        [torch.zeros(2, 3)],
        lambda v: v[0][1].add_(1),
        "v[0]: 3 of 6 elements, first at [1, 0]: 0.0 became 1.0 (1065353216 ulps)",
    ),
    ([torch.zeros(2)], lambda v: v.__setitem__(0, torch.zeros(3)), "v[0]: f32[2] became f32[3]"),
    (
        [torch.tensor([1, 2])],
        lambda v: v[0].fill_(1),
        "v[0]: 1 of 2 elements, first at [1]: 2 became 1",
    ),
    (nn.Linear(1, 1, bias=False), lambda v: v.weight.sum().backward(), "v.weight.grad: "),
    (nn.ReLU(), lambda v: v.eval(), "v.training: True became False"),
    (nn.Sequential(nn.ReLU()), lambda v: setattr(v[0], "seen", 1), "v.0.seen: 1 is new"),
    ([torch.eye(2).to_sparse()], lambda v: v[0].values().mul_(2), "v[0]: f32[2,2] became f32[2,2]"),
]


@pytest.mark.parametrize(("value", "change", "told"), CHANGED, ids=lambda each: str(each)[:24])
def test_a_change_is_described(value: Any, change: Any, told: str) -> None:
    before = snapshot(value, "v")
    assert changes(before, snapshot(value, "v")) == []
    change(value)
    (found,) = changes(before, snapshot(value, "v"))
    assert f"{found.place}: {found.detail}".startswith(told)


def test_a_nan_is_the_same_as_itself() -> None:
    value = {"a": float("nan"), "b": torch.tensor([float("nan")]), "c": np.array([np.nan])}
    assert changes(snapshot(value, ""), snapshot(value, "")) == []


def test_what_contains_itself_is_walked_once() -> None:
    value: list[Any] = [1]
    value.append(value)
    assert changes(snapshot(value, "v"), snapshot(value, "v")) == []


@pytest.mark.parametrize(
    ("view", "shares"),
    [
        (lambda x: x, True),
        (lambda x: x.t(), True),
        (lambda x: x.detach()[2:], True),
        (lambda x: x.numpy(), True),
        (lambda x: x.clone(), False),
        (lambda x: x[:0], False),
    ],
)
def test_views_are_found(view: Any, shares: bool) -> None:
    x = torch.zeros(4, 4)
    found = overlaps(extents({"view": view(x)}, "new"), extents(x[:, 1:], "old"))
    assert found == ([("new['view']", "old")] if shares else [])


def test_parts_of_one_memory_that_do_not_meet_are_no_overlap() -> None:
    flat = torch.zeros(10)
    assert overlaps(extents(flat[:5], "a"), extents(flat[5:], "b")) == []
    assert overlaps(extents(flat[:6], "a"), extents(flat[5:], "b")) == [("a", "b")]


def test_many_overlaps_are_all_found() -> None:
    flat = torch.zeros(100)
    parts = [flat[start : start + 10] for start in range(0, 90, 5)]
    found = overlaps(extents(parts, "a"), extents(parts, "b"))
    expected = [(f"a[{i}]", f"b[{j}]") for i in range(18) for j in range(18) if abs(i - j) < 2]
    assert found == sorted(expected)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: torch.rand(1), "torch's global generator was advanced"),
        (random.random, "random's global generator was advanced"),
        (np.random.rand, "NumPy's global generator was advanced"),
        (
            lambda: torch.use_deterministic_algorithms(True),
            "torch's choice of deterministic algorithms was changed from False to True",
        ),
        (lambda: torch.set_num_threads(2), "torch's number of threads was changed from 1 to 2"),
        (
            lambda: global_state.os.environ.update(PLANTED="1"),
            "the environment was changed: PLANTED",
        ),
        (lambda: global_state.os.chdir("/"), "the working directory was changed from"),
    ],
)
def test_changes_of_global_state_are_reported_and_undone(change: Any, told: str) -> None:
    before = global_state.capture()
    with global_state.preserved():
        change()
        (found,) = global_state.changed(before, global_state.capture())
    assert found.startswith(told)
    assert global_state.changed(before, global_state.capture()) == []
