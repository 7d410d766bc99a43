"""Batches that are objects of any class: copied, weighted and cut, or refused by name."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

import functrain as ft
import functrain.testing
from functrain import errors
from functrain.core.batch_lending import copied

X = torch.arange(24.0).reshape(6, 4) / 10
Y = X.sum(1, keepdim=True)
CPU = torch.device("cpu")


class Plain:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


class Slots:
    __slots__ = ("__private", "unset", "x", "y")

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.__private = x, y, 1


class SlotsAndMore(Slots):
    pass


class Store:
    """Tensors one level down, as in graphs of other packages."""

    def __init__(self, **tensors: Tensor) -> None:
        self.mapping = tensors
        self.sizes = {name: tensor.new_tensor(tensor.shape) for name, tensor in tensors.items()}


class Nested:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        object.__setattr__(self, "store", Store(x=x, y=y))

    def __getattr__(self, name: str) -> Any:
        if name in ("x", "y"):
            return self.store.mapping[name]
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.store.mapping[name] = value


class Items(dict[str, Tensor]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__(x=x)
        self.y = y

    @property
    def x(self) -> Tensor:
        return self["x"]


@dataclasses.dataclass
class Extended:
    x: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Any:
        made = cls(x)
        made.y = y  # type: ignore[attr-defined]
        return made


@attrs.frozen
class Derived:
    x: Tensor
    y: Tensor
    total: Tensor = attrs.field(init=False, default=attrs.Factory(lambda s: s.x + 1, True))


class Registered:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y


pytree.register_pytree_node(
    Registered,
    lambda value: ([value.x, value.y], ("made of", 2)),
    lambda values, _: Registered(*values),
)
KINDS: dict[str, Callable[..., Any]] = {
    "attributes": Plain,
    "namespace": lambda x, y: SimpleNamespace(x=x, y=y),
    "slots": Slots,
    "slots and more": SlotsAndMore,
    "objects within": Nested,
    "dict with a tensor in an attribute": Items,
    "dataclass with a tensor in another attribute": Extended.of,
    "attrs class with a derived field": Derived,
    "pytree": Registered,
}


def loss(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch.x) - batch.y).square().mean()


def pairs(model: nn.Module, batch: Any) -> Tensor:
    return (model(batch["x"]) - batch["y"]).square().mean()


def weighted(model: nn.Module, batch: Any) -> ft.Loss:
    return ft.Loss(loss(model, batch), weight=len(batch.x))


def writing(model: nn.Module, batch: Any) -> Tensor:
    batch.x.add_(1)
    batch.y.mul_(2)
    return loss(model, batch)


def is_counted(kind: type) -> bool:
    """Whether the tensors in an object of a class are its samples, if they agree."""
    return dataclasses.is_dataclass(kind) or attrs.has(kind) or kind in (Items, Registered)


def program(function: Any = loss, **options: Any) -> ft.Program:
    return ft.program(lambda: nn.Linear(4, 1), function, ft.optim.SGD(lr=0.01), **options)


def expected(function: Any = pairs) -> Any:
    return program(function).train_step(program().init(), {"x": X, "y": Y})


@pytest.fixture(params=list(KINDS))
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return KINDS[request.param]


@pytest.mark.row(3)
class TestKinds:
    def test_a_step_is_that_of_a_dict(self, make: Any) -> None:
        state, found = program().train_step(program().init(), make(X.clone(), Y.clone()))
        assert torch.equal(found["loss"], expected()[1]["loss"])
        assert torch.equal(state.params["weight"], expected()[0].params["weight"])

    def test_a_model_that_writes_into_its_batch_leaves_the_users_alone(self, make: Any) -> None:
        batch = make(X.clone(), Y.clone())
        writes = program(writing)
        first = writes.train_step(writes.init(), batch)[1]["loss"]
        writes.eval_step(writes.init(), batch)
        assert torch.equal(batch.x, X)
        assert torch.equal(batch.y, Y)
        assert torch.equal(first, writes.train_step(writes.init(), batch)[1]["loss"])

    def test_a_copy_is_of_the_same_class_on_the_device(self, make: Any) -> None:
        batch = make(X, Y)
        own = copied(batch, torch.device("meta"))
        assert type(own) is type(batch)
        assert (own.x.device.type, own.y.device.type) == ("meta", "meta")
        assert batch.x is X

    def test_uneven_evaluation_batches_are_weighted_or_refused(self, make: Any) -> None:
        uneven = [make(X[:5], Y[:5]), make(X[5:], Y[5:])]
        whole = ft.evaluate(program(pairs), program().init(), [{"x": X, "y": Y}])["loss"]
        found = ft.evaluate(program(weighted), program().init(), uneven)["loss"]
        assert found == pytest.approx(whole)
        if is_counted(type(uneven[0])):
            found = ft.evaluate(program(), program().init(), uneven)["loss"]
            assert found == pytest.approx(whole)
            return
        with pytest.raises(errors.BatchSizeError, match=r"data\.size\.register"):
            ft.evaluate(program(), program().init(), uneven)

    def test_micro_batches_are_one_batch(self, make: Any) -> None:
        parts = ft.MicroBatches([make(X[:5], Y[:5]), make(X[5:], Y[5:])])
        found, _ = program(weighted, accumulate=2).train_step(program().init(), parts)
        torch.testing.assert_close(found.params, expected()[0].params)
        assert found.counters.samples == 6

    def test_one_is_cut_or_refused(self, make: Any) -> None:
        cut = program(weighted, accumulate=2)
        kind = type(make(X, Y))
        if is_counted(kind) and kind is not Registered:
            found, _ = cut.train_step(cut.init(), make(X, Y))
            torch.testing.assert_close(found.params, expected()[0].params)
            return
        with pytest.raises(errors.UnsupportedError, match=r"data\.split\.register") as refused:
            cut.train_step(cut.init(), make(X, Y))
        assert kind.__qualname__ in str(refused.value)
        assert "MicroBatches" in str(refused.value)

    @pytest.mark.parametrize("transformation", [ft.donated, ft.checked])
    def test_transformed(self, make: Any, transformation: Any) -> None:
        made = transformation(program())
        _, found = made.train_step(made.init(), make(X.clone(), Y.clone()))
        assert torch.equal(found["loss"], expected()[1]["loss"])

    def test_compiled(self, make: Any) -> None:
        compiled, state = ft.compiled(program(), backend="eager"), program().init()
        for rows in (slice(0, 3), slice(3, 6)):
            _, plain = program(pairs).train_step(state, {"x": X[rows], "y": Y[rows]})
            _, found = compiled.train_step(state, make(X[rows].clone(), Y[rows].clone()))
            torch.testing.assert_close(found["loss"], plain["loss"])

    def test_pure(self, make: Any) -> None:
        ft.testing.check_pure(program(), program().init(), make(X.clone(), Y.clone()))


class TestCopies:
    def test_other_attributes_are_kept(self) -> None:
        lock = object()
        batch = SimpleNamespace(x=X, names=["a"], lock=lock, model=(module := nn.Linear(1, 1)))
        own = copied(batch, CPU)
        assert (own.names, own.lock, own.model) == (["a"], lock, module)
        own.names.append("b")
        assert batch.names == ["a"]

    def test_an_object_within_its_own_attributes_is_refused_by_name(self) -> None:
        batch = SimpleNamespace(x=X)
        batch.inside = {"owner": batch}
        with pytest.raises(errors.UnsupportedError, match=r"SimpleNamespace.*leads back to itself"):
            program().train_step(program().init(), batch)

    def test_a_way_back_to_the_owner_without_tensors_is_kept(self) -> None:
        tokenizer = SimpleNamespace(words=["a"])
        tokenizer.itself = tokenizer
        assert copied({"x": X, "tokenizer": tokenizer}, CPU)["tokenizer"] is tokenizer

    def test_an_object_without_tensors_is_kept_as_it_is(self) -> None:
        batch = SimpleNamespace(text="a", sizes=[1, 2])
        assert copied(batch, CPU) is batch

    def test_arrays_are_copied(self) -> None:
        batch = {"x": np.ones(3), "inside": SimpleNamespace(x=np.ones(3))}
        own = copied(batch, CPU)
        own["x"][:], own["inside"].x[:] = 0, 0
        assert batch["x"].sum() == batch["inside"].x.sum() == 3

    @pytest.mark.parametrize("in_place", [True, False])
    def test_a_class_moves_its_copy_itself(self, in_place: bool) -> None:
        class Graph:
            def __init__(self, x: Tensor) -> None:
                self.x, self.lengths, self.device = x, torch.ones(2), x.device

            def to(self, device: Any) -> Any:
                moved = self if in_place else Graph(self.x)
                moved.x, moved.device = self.x.to(device), torch.device(device)
                return None if in_place else moved

        graph = Graph(X)
        own = copied(graph, torch.device("meta"))
        assert (own.x.device.type, own.device.type, own.lengths.device.type) == (
            "meta",
            "meta",
            "cpu",
        )
        assert graph.x is X
        assert copied(graph, CPU).x is not X

    def test_what_cannot_be_seen_is_cloned_by_its_class(self) -> None:
        class Handle:
            __slots__ = ()
            held: ClassVar[dict[int, Tensor]] = {}

            def clone(self) -> Handle:
                fresh = Handle()
                self.held[id(fresh)] = self.held[id(self)].clone()
                return fresh

            def to(self, device: Any) -> Handle:
                self.held[id(self)] = self.held[id(self)].to(device)
                return self

        handle = Handle()
        Handle.held[id(handle)] = X
        own = copied(handle, torch.device("meta"))
        assert own is not handle
        assert Handle.held[id(own)].device.type == "meta"
        assert Handle.held[id(handle)] is X

    def test_what_cannot_be_copied_is_refused_by_name(self) -> None:
        class Mine(SimpleNamespace):
            def __copy__(self) -> Any:
                raise TypeError("there is only one")

        mine = Mine(x=X, y=Y)
        with pytest.raises(errors.UnsupportedError, match="Mine"):
            program().train_step(program().init(), mine)

    def test_a_subclass_of_a_class_written_in_c(self) -> None:
        failure = LookupError("a", 1)
        failure.x = X  # type: ignore[attr-defined]
        own = copied(failure, CPU)
        assert own.args == ("a", 1)
        assert own.x is not X

    @pytest.mark.parametrize("kind", [OrderedDict, UserDict, functools.partial(defaultdict, list)])
    def test_containers_within_objects(self, kind: Any) -> None:
        batch = SimpleNamespace(inside=kind({"x": X}), kinds={torch.float32}, pair=(X, "a"))
        own = copied(batch, CPU)
        assert type(own.inside) is type(batch.inside)
        assert own.inside["x"] is not X
        assert own.pair[0] is not X


class TestCompiled:
    def test_a_graph_is_not_shared_by_unlike_objects(self) -> None:
        def scaled(model: nn.Module, batch: Any) -> Tensor:
            return model(batch.x).mean() * batch.scale + batch.options.get("shift", 0)

        compiled, state = ft.compiled(program(scaled), backend="eager"), program().init()
        for scale, options in ((1.0, {}), (2.0, {}), (2.0, {"shift": 1.0})):
            batch = SimpleNamespace(x=X, scale=scale, options=options)
            plain = program(scaled).train_step(state, batch)[1]["loss"]
            found = compiled.train_step(state, batch)[1]["loss"]
            torch.testing.assert_close(found, plain)

    def test_aliases_are_distinguished(self) -> None:
        def difference(model: nn.Module, batch: Any) -> Tensor:
            return (model(batch.a) - model(batch.b) + 2 * model(batch.c)).sum()

        compiled, state = ft.compiled(program(difference), backend="eager"), program().init()
        for batch in (SimpleNamespace(a=X, b=X + 1, c=X), SimpleNamespace(a=X, b=Y * X, c=Y * X)):
            batch.c = batch.a if batch.c is X else batch.b
            plain = program(difference).train_step(state, batch)[1]["loss"]
            torch.testing.assert_close(compiled.train_step(state, batch)[1]["loss"], plain)

    def test_a_value_that_cannot_be_compared_is_refused_by_name(self) -> None:
        batch = SimpleNamespace(x=X, y=Y, handle=object())
        with pytest.raises(errors.CaptureError, match="object"):
            ft.compiled(program(), backend="eager").train_step(program().init(), batch)


class Graph:
    """Like the data of PyTorch Geometric: leading sizes that have nothing to do with samples."""

    def __init__(self, nodes: int) -> None:
        generator = torch.Generator().manual_seed(nodes)
        self.x = torch.randn(nodes, 4, generator=generator)
        self.edge_index = torch.randint(nodes, (2, 3 * nodes), generator=generator)
        self.y = self.x.sum(1, keepdim=True)


class KnownGraph(Graph):
    pass


@ft.data.size.register
def _(graph: KnownGraph) -> int:
    return len(graph.x)


@ft.data.split.register
def _(graph: KnownGraph, sizes: Any) -> list[Any]:
    parts = []
    for x, y in zip(graph.x.split(sizes), graph.y.split(sizes), strict=True):
        part = copy.copy(graph)
        part.x, part.y = x, y
        parts.append(part)
    return parts


def mean_of(graphs: list[Graph], state: ft.TrainState) -> float:
    each = [program().eval_step(state, graph)["loss"] * len(graph.x) for graph in graphs]
    return float(sum(each)) / sum(len(graph.x) for graph in graphs)


class TestSizes:
    def test_one_batch_needs_no_size(self) -> None:
        state = program().init()
        program().train_step(state, Graph(7))
        assert ft.evaluate(program(), state, [Graph(7)])["loss"] == pytest.approx(
            program().eval_step(state, Graph(7))["loss"].item()
        )
        run = ft.fit(program(), [Graph(7), Graph(3)], until="4 steps", eval_data=[Graph(5)])
        assert run.state.counters.step == 4

    @pytest.mark.filterwarnings("ignore::functrain.errors.EmptyBatchWarning")
    def test_one_without_rows_is_an_empty_batch(self) -> None:
        state, _ = program().train_step(program().init(), SimpleNamespace(x=X[:0], y=Y[:0]))
        assert (state.counters.step, state.counters.empty) == (0, 1)

    def test_an_evaluation_over_several_is_refused(self) -> None:
        with pytest.raises(errors.BatchSizeError) as refused:
            ft.evaluate(program(), program().init(), [Graph(7), Graph(3)])
        for part in ("nothing says", "functrain.Loss(value, weight=n)", "size.register(Graph)"):
            assert part in str(refused.value)

    def test_also_where_only_one_of_them_is_unknown(self) -> None:
        data = [KnownGraph(4), Graph(3)]
        for order in (data, data[::-1]):
            with pytest.raises(errors.BatchSizeError, match=r"register\(Graph\)"):
                ft.evaluate(program(), program().init(), order)

    def test_a_weight_of_the_loss_is_a_remedy(self) -> None:
        graphs, state = [Graph(7), Graph(3)], program().init()
        found = ft.evaluate(program(weighted), state, graphs)["loss"]
        assert found == pytest.approx(mean_of(graphs, state))

    def test_a_registered_size_is_a_remedy(self) -> None:
        graphs, state = [KnownGraph(7), KnownGraph(3)], program().init()
        found = ft.evaluate(program(), state, graphs)["loss"]
        assert found == pytest.approx(mean_of(graphs, state))  # type: ignore[arg-type]
        inside = [(graph, "a name") for graph in graphs]
        found = ft.evaluate(program(lambda m, b: loss(m, b[0])), state, inside)["loss"]
        assert found == pytest.approx(mean_of(graphs, state))  # type: ignore[arg-type]

    @pytest.mark.parametrize("transformation", [lambda p: p, ft.donated])
    def test_micro_batches_of_unknown_size_are_refused(self, transformation: Any) -> None:
        made = transformation(program(accumulate=2))
        with pytest.raises(errors.BatchSizeError, match=r"Loss\(value, weight=n\)"):
            ft.fit(made, [Graph(7), Graph(3)], until="1 step")

    def test_compiled_micro_batches_of_unknown_size_are_refused(self) -> None:
        made = ft.compiled(program(accumulate=2), backend="eager")
        with pytest.raises(errors.BatchSizeError):
            ft.fit(made, [Graph(7), Graph(3)], until="1 step")

    def test_a_single_micro_batch_needs_no_size(self) -> None:
        made = program(accumulate=2)
        for one in (made, ft.compiled(made, backend="eager")):
            state, _ = one.train_step(one.init(), ft.MicroBatches([Graph(7)]))
            assert state.counters.step == 1

    def test_a_registered_split_is_used(self) -> None:
        made = program(accumulate=2)
        cut, _ = made.train_step(made.init(), KnownGraph(7))
        whole, _ = program().train_step(made.init(), KnownGraph(7))
        torch.testing.assert_close(cut.params, whole.params)
        assert cut.counters.samples == 7

    @pytest.mark.parametrize("option", ["until", "eval_every", "save_every"])
    def test_a_duration_in_samples_needs_sizes(self, option: str, tmp_path: Any) -> None:
        options: dict[str, Any] = {"until": "4 steps", option: "6 samples"}
        options |= {"directory": tmp_path, "eval_data": [Graph(3)]}
        with pytest.raises(errors.BatchSizeError, match="steps or epochs"):
            ft.fit(program(), [Graph(7), Graph(3)], **options)
        known = ft.fit(program(), [KnownGraph(7)], until="6 samples")
        assert known.state.counters.samples == 7


def batches(make: Callable[[int], Any]) -> list[Any]:
    return [make(5), make(1)]


def disagreeing() -> Iterator[Any]:
    yield pytest.param(batches(lambda n: {"e": torch.zeros(2, 9), "x": X[:n], "y": Y[:n]}), id="e")
    yield pytest.param(batches(lambda n: {"x": X[:n], "y": Y[:n], "w": torch.ones(3)}), id="w")
    yield pytest.param(
        batches(lambda n: {"x": X[None, :n], "y": Y[None, :n], "ends": torch.ones(n + 1)}), id="cu"
    )
    yield pytest.param(
        batches(lambda n: {"raw": [X[:3]] * n, "x": X[:n], "y": Y[:n], "t": torch.ones(2)}), id="t"
    )


class TestDisagreement:
    """Tensors of different leading sizes in one batch: the first is no better than another."""

    @pytest.mark.parametrize("batches", list(disagreeing()))
    def test_an_uneven_evaluation_is_refused(self, batches: Any) -> None:
        with pytest.raises(errors.BatchSizeError, match="leading sizes differ") as refused:
            ft.evaluate(program(pairs), program().init(), batches)
        assert "register" not in str(refused.value)  # there is no class to register

    @pytest.mark.parametrize("batches", list(disagreeing()))
    def test_cutting_is_refused(self, batches: Any) -> None:
        with pytest.raises(errors.UnsupportedError, match="leading sizes differ"):
            program(pairs, accumulate=2).train_step(program().init(), batches[0])

    @pytest.mark.parametrize("batches", list(disagreeing()))
    def test_a_step_and_one_evaluation_batch_are_not(self, batches: Any) -> None:
        state, metrics = program(pairs).train_step(program().init(), batches[0])
        assert state.counters.step == 1
        assert ft.evaluate(program(pairs), program().init(), batches[:1])["loss"] == metrics["loss"]

    def test_a_list_of_samples_is_none_of_fields(self) -> None:
        def samples(model: nn.Module, batch: Any) -> Tensor:
            x, y = (torch.stack(column) for column in zip(*batch, strict=True))
            return (model(x) - y).square().mean()

        data = [list(zip(X[:5], Y[:5], strict=True)), list(zip(X[5:], Y[5:], strict=True))]
        with pytest.raises(errors.BatchSizeError):
            ft.evaluate(program(samples), program().init(), data)

    def test_lists_of_one_thing_a_sample_are_cut(self) -> None:
        seen = []

        def detection(model: nn.Module, batch: Any) -> Tensor:
            images, boxes = batch
            seen.append((len(images), [len(each["boxes"]) for each in boxes]))
            return model(images).mean()

        boxes = [{"boxes": torch.zeros(n, 4)} for n in (2, 0, 3, 6, 1, 4)]
        made = program(detection, accumulate=3)
        made.train_step(made.init(), (X, boxes))
        assert seen == [(2, [2, 0]), (2, [3, 6]), (2, [1, 4])]

    def test_a_list_of_one_thing_a_sample_is_counted_by_the_tensor_next_to_it(self) -> None:
        def stacked(model: nn.Module, batch: Any) -> Tensor:
            return pairs(model, {"x": torch.stack(batch["x"]), "y": batch["y"]})

        batch = {"x": list(X), "y": Y}
        state, _ = program(stacked).train_step(program().init(), batch)
        assert state.counters.samples == ft.data.size(batch) == 6

    def test_a_batch_with_one_empty_part_is_not_empty(self) -> None:
        state, _ = program(pairs).train_step(
            program().init(), {"boxes": torch.zeros(0, 4), "x": X, "y": Y}
        )
        assert (state.counters.step, state.counters.empty) == (1, 0)

    def test_arrays_count(self) -> None:
        def arrays(model: nn.Module, batch: Any) -> Tensor:
            return pairs(model, {name: torch.from_numpy(each) for name, each in batch.items()})

        data = [{"x": X[rows].numpy(), "y": Y[rows].numpy()} for rows in (slice(5), slice(5, 6))]
        whole = ft.evaluate(program(pairs), program().init(), [{"x": X, "y": Y}])["loss"]
        found = ft.evaluate(program(arrays), program().init(), data)["loss"]
        assert found == pytest.approx(whole)
        made = program(arrays, accumulate=2)
        state, _ = made.train_step(made.init(), {"x": X.numpy(), "y": Y.numpy()})
        torch.testing.assert_close(state.params, expected()[0].params)
