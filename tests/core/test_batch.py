"""Batches of every kind of container: copied as what they are, counted, cut."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import functrain as ft
from functrain import errors
from functrain.core.batch import size
from functrain.core.batch_lending import copied
from functrain.core.batch_splitting import split_step

X = torch.arange(24.0).reshape(6, 4) / 10
Y = X.sum(1, keepdim=True)


@dataclasses.dataclass
class Record:
    x: Tensor
    y: Tensor
    names: Any = None


@dataclasses.dataclass(frozen=True)
class FrozenRecord:
    x: Tensor
    y: Tensor


@attrs.frozen
class Fields:
    x: Tensor
    y: Tensor


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


class Attributes(dict[str, Any]):
    def __getattr__(self, name: str) -> Any:
        return self[name]


class OneDict(dict[str, Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__ = self


def default(x: Tensor, y: Tensor) -> Any:
    return defaultdict(list, x=x, y=y)


KINDS: dict[str, Callable[..., Any]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "defaultdict": default,
    "UserDict": UserDict,
    "mapping proxy": lambda **columns: MappingProxyType(columns),
    "dict with attributes": Attributes,
    "dict that is its attributes": OneDict,
    "dataclass": Record,
    "frozen dataclass": FrozenRecord,
    "attrs class": Fields,
    "named tuple": Pair,
}


def column(batch: Any, name: str) -> Any:
    return batch[name] if isinstance(batch, Mapping) else getattr(batch, name)


def loss(model: nn.Module, batch: Any) -> Tensor:
    return (model(column(batch, "x")) - column(batch, "y")).square().mean()


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return KINDS[request.param]


def program(**options: Any) -> ft.Program:
    return ft.program(lambda: nn.Linear(4, 1), loss, ft.optim.SGD(lr=0.01), **options)


@pytest.mark.row(3)
class TestKinds:
    def test_a_copy_is_of_the_same_class_and_shares_nothing(self, make: Any) -> None:
        batch = make(x=X.clone(), y=Y.clone())
        own = copied(batch, X.device)
        assert type(own) is type(batch)
        column(own, "x").zero_()
        assert torch.equal(column(batch, "x"), X)

    def test_samples_are_counted(self, make: Any) -> None:
        state, _ = program().train_step(program().init(), make(x=X, y=Y))
        assert state.counters.samples == 6
        assert size(make(x=X[:0], y=Y[:0])) == 0

    def test_micro_batches_are_one_batch(self, make: Any) -> None:
        assert [size(part) for part in split_step(make(x=X, y=Y), 4).parts] == [2, 2, 1, 1]
        whole, _ = program().train_step(program().init(), {"x": X, "y": Y})
        cut, _ = program(accumulate=4).train_step(program().init(), make(x=X, y=Y))
        torch.testing.assert_close(whole.params, cut.params)

    def test_uneven_evaluation_batches_are_weighted(self, make: Any) -> None:
        state = program().init()
        uneven = [make(x=X[:5], y=Y[:5]), make(x=X[5:], y=Y[5:])]
        whole = ft.evaluate(program(), state, [{"x": X, "y": Y}])
        assert ft.evaluate(program(), state, uneven)["loss"] == pytest.approx(whole["loss"])

    def test_compiled(self, make: Any) -> None:
        compiled, state = ft.compiled(program(), backend="eager"), program().init()
        for rows in (slice(0, 3), slice(3, 6)):
            _, expected = program().train_step(state, {"x": X[rows], "y": Y[rows]})
            _, found = compiled.train_step(state, make(x=X[rows], y=Y[rows]))
            torch.testing.assert_close(found["loss"], expected["loss"])


class TestContainers:
    def test_attributes_that_are_items_follow(self) -> None:
        own = copied(OneDict(x=X), torch.device("cpu"))
        assert own.x is own["x"] is not X

    def test_what_is_no_field_of_a_dataclass_is_kept(self) -> None:
        record = Record(X, Y, names=["a"] * 6)
        record.extra = 3  # type: ignore[attr-defined]
        own = copied(record, X.device)
        assert (own.extra, own.names) == (3, ["a"] * 6)

    def test_the_factory_of_a_defaultdict_is_kept(self) -> None:
        assert copied(default(X, Y), X.device)["else"] == []

    def test_a_list_of_dataclasses_is_a_list_of_batches(self) -> None:
        parts = [Record(X[:5], Y[:5]), Record(X[5:], Y[5:])]
        one, _ = program(accumulate=2).train_step(program().init(), parts)
        assert one.counters.samples == 6

    @pytest.mark.parametrize("kind", [torch.asarray, np.asarray])
    def test_a_list_of_tensors_is_one_batch(self, kind: Any) -> None:
        def pairs(model: nn.Module, batch: Any) -> Tensor:
            x, y = map(torch.as_tensor, batch)
            return (model(x) - y).square().mean()

        made = ft.program(lambda: nn.Linear(4, 1), pairs, ft.optim.SGD(lr=0.01), accumulate=3)
        cut, _ = made.train_step(made.init(), [kind(X), kind(Y)])  # as a DataLoader gives it
        whole, _ = program().train_step(program().init(), {"x": X, "y": Y})
        assert cut.counters.samples == 6
        torch.testing.assert_close(whole.params, cut.params)

    def test_an_array_is_refused_by_a_compiled_step(self) -> None:
        compiled = ft.compiled(program(), backend="eager")
        with pytest.raises(errors.CaptureError, match="ndarray"):
            compiled.train_step(compiled.init(), {"x": X.numpy(), "y": Y.numpy()})

    @pytest.mark.parametrize(
        "tensor",
        [X.to_sparse(), X.to_sparse_csr(), torch.nested.nested_tensor([X[:2], X])],
        ids=["coo", "csr", "nested"],
    )
    def test_a_tensor_that_is_not_dense_is_not_cut(self, tensor: Tensor) -> None:
        made = program(accumulate=2)
        with pytest.raises(errors.UnsupportedError, match="MicroBatches"):
            made.train_step(made.init(), {"x": tensor})

    def test_an_object_without_known_parts_is_kept_as_it_is(self) -> None:
        batch = object()
        assert copied(batch, X.device) is batch


class TestPackedSequences:
    sequences = (X[:3], X[3:5], X[5:])

    def test_samples_are_sequences(self) -> None:
        packed = pack_sequence(list(self.sequences))
        assert size((packed, torch.ones(3))) == 3

    def test_a_copy_is_packed_and_shares_nothing(self) -> None:
        packed = pack_sequence(list(self.sequences))
        own = copied(packed, X.device)
        assert type(own) is PackedSequence
        before = copy.deepcopy(packed)
        own.data.zero_()
        assert torch.equal(packed.data, before.data)

    def test_lengths_stay_on_the_host(self) -> None:
        own = copied(pack_sequence(list(self.sequences)), torch.device("meta"))
        assert (own.data.device.type, own.batch_sizes.device.type) == ("meta", "cpu")

    def test_cutting_one_is_refused(self) -> None:
        with pytest.raises(errors.UnsupportedError, match="MicroBatches"):
            split_step((pack_sequence(list(self.sequences)), torch.ones(3)), 2)


class TestMicroBatches:
    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (X, r"a tensor of shape \[6, 4\]"),
            ({"x": X, "y": Y}, "a dict"),
            ((X, Y), "a tuple of tensors, which may be one batch or several"),
            ([ft.MicroBatches([X])], "MicroBatches in it"),
            (ft.MicroBatches([X]), "a MicroBatches"),
        ],
        ids=["tensor", "dict", "tuple", "nested", "its own"],
    )
    def test_of_one_batch_are_refused(self, given: Any, said: str) -> None:
        with pytest.raises(errors.UnsupportedError, match=f"a list of batches.*got .*{said}"):
            ft.MicroBatches(given)

    def test_are_no_batch_of_an_evaluation(self) -> None:
        batch = ft.MicroBatches([{"x": X, "y": Y}])
        with pytest.raises(errors.UnsupportedError, match=r"one batch.*functrain\.evaluate"):
            program().eval_step(program().init(), batch)
