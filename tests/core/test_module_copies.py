"""A copy of a module that is lent is that of ``copy.deepcopy``."""

from __future__ import annotations

import copy
import weakref
from collections import OrderedDict
from types import BuiltinFunctionType, FunctionType
from typing import Any

import pytest
import torch
from torch import nn

from functrain.core.module_copies import module_copy


class Settings:
    def __init__(self) -> None:
        self.sizes = [1, 2]


class Odd(nn.Module):
    """Has attributes of every kind, some of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
        self.two.weight = self.one.weight
        self.listed = [self.one, (self.two, {"self": self})]
        self.empty: list[Any] = []
        self.named = {"empty": self.empty, 3: torch.ones(2)}
        self.settings = self.one.settings = Settings()
        self.method = self.one.forward
        self.function = torch.relu
        self.names = {"a", "b"}
        self.ordered = OrderedDict(a=self.named)
        self.register_forward_hook(lambda *_: None)
        self.register_buffer("count", torch.zeros(()))


class Deep(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> Deep:
        made = Deep(2, 2)
        made.was_copied = True
        return made


class Pickled(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "was_copied": True}


class Rebuilt(nn.Linear):
    def __reduce__(self) -> Any:
        return Rebuilt, (2, 2)


MODULES = [
    Odd,
    lambda: Deep(2, 2),
    lambda: Pickled(2, 2),
    lambda: Rebuilt(2, 2),
    lambda: nn.LSTM(2, 2, num_layers=2),
    lambda: nn.TransformerEncoderLayer(4, 2, 4),
    lambda: nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Softmax(), Odd()),
    lambda: nn.ParameterDict({"a": torch.ones(2)}),
]


def structure(value: Any, seen: dict[int, int]) -> Any:
    """Return the types and values below an object, with a number for what was seen before."""
    if isinstance(value, int | float | str | None | type | FunctionType | BuiltinFunctionType):
        return value
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = len(seen)
    kind = type(value)
    if isinstance(value, weakref.ref):
        return kind, structure(value(), seen)
    if isinstance(value, torch.Tensor):
        return kind, value.tolist(), value.requires_grad
    if isinstance(value, dict):
        return kind, [(key, structure(child, seen)) for key, child in value.items()]
    if isinstance(value, list | tuple):
        return kind, [structure(child, seen) for child in value]
    if isinstance(value, set):
        return kind, sorted(value)
    owner = getattr(value, "__self__", None)  # of a bound method
    return kind, structure(vars(value) if owner is None else owner, seen)


@pytest.mark.parametrize("make", MODULES)
def test_it_is_that_of_deepcopy(make: Any) -> None:
    torch.manual_seed(0)
    module = make()
    expected, found = copy.deepcopy(module), module_copy(module, {})
    if not isinstance(module, Deep | Rebuilt):  # made with other values
        assert structure(found, {}) == structure(expected, {})
    assert getattr(found, "was_copied", False) == getattr(expected, "was_copied", False)


def test_nothing_that_may_change_is_shared() -> None:
    module = Odd()
    before = structure(module, {})
    found: Any = module_copy(module, {})
    found.empty.append(1)
    found.settings.sizes.append(3)
    found.names.add("c")
    found.register_forward_hook(lambda *_: None)
    found.count += 1
    found.register_buffer("more", torch.ones(1))
    assert structure(module, {}) == before
    assert found.named["empty"] == [1]
    assert found.method.__self__ is found.one
    assert found.listed[1][1]["self"] is found


def test_what_the_memo_has_is_not_copied() -> None:
    module, weight = Odd(), torch.full((2, 2), 7.0)
    found: Any = module_copy(module, {id(module.one.weight): weight})
    assert found.one.weight is weight
    assert found.two.weight is weight
