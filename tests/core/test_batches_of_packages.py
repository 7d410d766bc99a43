"""Batches of PyTorch Geometric and of tensordict, as their users would give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
import functrain.testing
from functrain import errors
from functrain.core.batch_lending import copied

pytestmark = pytest.mark.row(3)


def program(loss: Any, **options: Any) -> ft.Program:
    return ft.program(lambda: nn.Linear(4, 1), loss, ft.optim.SGD(lr=0.1), **options)


class TestGraphs:
    @pytest.fixture
    def data(self) -> Any:
        return pytest.importorskip("torch_geometric.data")

    @pytest.fixture
    def graphs(self, data: Any) -> list[Any]:
        generator = torch.Generator().manual_seed(0)
        return [
            data.Data(
                x=torch.randn(nodes, 4, generator=generator),
                edge_index=torch.randint(nodes, (2, 3 * nodes), generator=generator),
                y=torch.randn(1, generator=generator),
                name=f"graph {nodes}",
            )
            for nodes in (3, 5, 4, 6, 2)
        ]

    @staticmethod
    def loss(model: nn.Module, batch: Any) -> Tensor:
        batch.x += 0  # as layers of graphs write to their batch
        batch.hidden = batch.x.index_add(0, batch.edge_index[1], batch.x[batch.edge_index[0]])
        each = model(batch.hidden)[:, 0].new_zeros(batch.num_graphs)
        each = each.index_add(0, batch.batch, model(batch.hidden)[:, 0])
        return (each - batch.y).square().mean()

    @staticmethod
    def of_nodes(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch.x)[:, 0] - batch.x.sum(1)).square().mean()

    def test_the_users_graphs_are_left_alone(self, data: Any, graphs: Any) -> None:
        batch = data.Batch.from_data_list(graphs)
        before = batch.clone()
        made = program(self.loss)
        ft.testing.check_pure(made, made.init(), batch)
        made.train_step(made.init(), batch)
        assert "hidden" not in batch
        assert batch.keys() == before.keys()
        assert torch.equal(batch.x, before.x)

    def test_a_copy_is_whole(self, data: Any, graphs: Any) -> None:
        batch = data.Batch.from_data_list(graphs)
        own = copied(batch, torch.device("cpu"))
        assert (type(own), own.num_graphs, own.name) == (type(batch), 5, batch.name)
        assert own.get_example(1).x.shape == (5, 4)
        own.x.zero_()
        assert batch.get_example(1).x.abs().sum() > 0
        assert copied(batch, torch.device("meta")).x.device.type == "meta"
        assert batch.x.device.type == "cpu"

    def test_a_batch_counts_its_graphs(self, data: Any, graphs: Any) -> None:
        loader = pytest.importorskip("torch_geometric.loader").DataLoader(graphs, batch_size=2)
        made, whole = program(self.loss), data.Batch.from_data_list(graphs)
        expected = ft.evaluate(made, made.init(), [whole])["loss"]
        assert ft.evaluate(made, made.init(), loader)["loss"] == pytest.approx(expected)
        assert made.train_step(made.init(), whole)[0].counters.samples == 5

    def test_micro_batches_are_one_batch(self, data: Any, graphs: Any) -> None:
        made, whole = program(self.loss), data.Batch.from_data_list(graphs)
        expected, _ = made.train_step(made.init(), whole)
        cut, _ = program(self.loss, accumulate=2).train_step(made.init(), whole)
        torch.testing.assert_close(cut.params, expected.params)
        loader = pytest.importorskip("torch_geometric.loader").DataLoader(graphs, batch_size=3)
        run = ft.fit(program(self.loss, accumulate=2), loader, until="1 step", state=made.init())
        torch.testing.assert_close(run.state.params, expected.params)

    def test_single_graphs_need_a_weight(self, graphs: Any) -> None:
        made = program(self.of_nodes)
        made.train_step(made.init(), graphs[0])
        with pytest.raises(errors.BatchSizeError, match=r"size\.register\(Data\)"):
            ft.evaluate(made, made.init(), graphs)
        with pytest.raises(errors.UnsupportedError, match=r"split\.register\(Data\)"):
            program(self.of_nodes, accumulate=2).train_step(made.init(), graphs[0])

    def test_sampled_neighbours_say_their_size(self, graphs: Any) -> None:
        graphs[0].batch_size, graphs[1].batch_size = 1, 3
        made = program(self.of_nodes)
        one, other = (made.eval_step(made.init(), graph)["loss"] for graph in graphs[:2])
        found = ft.evaluate(made, made.init(), graphs[:2])["loss"]
        assert found == pytest.approx((one + 3 * other).item() / 4)

    def test_compiled(self, graphs: Any) -> None:
        made = program(self.of_nodes)
        compiled = ft.compiled(made, backend="eager")
        for graph in graphs[:2]:
            plain = made.train_step(made.init(), graph)[1]["loss"]
            found = compiled.train_step(made.init(), graph)[1]["loss"]
            torch.testing.assert_close(found, plain)

    def test_kinds_of_nodes(self, data: Any) -> None:
        graph = data.HeteroData()
        graph["paper"].x, graph["author"].x = torch.ones(3, 4), torch.ones(2, 4)
        graph["author", "writes", "paper"].edge_index = torch.tensor([[0, 1], [2, 0]])
        own = copied(graph, torch.device("cpu"))
        assert own.node_types == graph.node_types
        assert own["paper"]._parent() is own
        assert own["paper"].x is not graph["paper"].x


class TestTensorDicts:
    X = torch.arange(24.0).reshape(6, 4) / 10

    @pytest.fixture(params=["TensorDict", "tensorclass"])
    def batch(self, request: pytest.FixtureRequest) -> Any:
        tensordict = pytest.importorskip("tensordict")
        x, y = self.X.clone(), self.X.sum(1, keepdim=True)
        if request.param == "TensorDict":
            inner = tensordict.TensorDict({"y": y}, [6])
            return tensordict.TensorDict({"x": x, "inner": inner, "text": "a"}, [6])
        inner, outer = map(tensordict.tensorclass, (Inner, Outer))
        return outer(x=x, inner=inner(y=y, batch_size=[6]), text="a", batch_size=[6])

    @staticmethod
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return (model(batch.get("x")) - batch.get("inner").get("y")).square().mean()

    @staticmethod
    def writing(model: nn.Module, batch: Any) -> Tensor:
        batch.get("x").add_(1)
        batch.get("inner").get("y").zero_()
        return TestTensorDicts.loss(model, batch)

    def test_a_step_is_that_of_a_dict(self, batch: Any) -> None:
        made = program(self.loss)
        plain = {"x": self.X, "inner": {"y": self.X.sum(1, keepdim=True)}}
        expected, metrics = made.train_step(made.init(), plain)
        for step in (made, ft.donated(made), ft.checked(made)):
            state, found = step.train_step(made.init(), batch)
            assert torch.equal(found["loss"], metrics["loss"])
            assert state.counters.samples == 6
        compiled = ft.compiled(made, backend="eager")
        for part, rows in ((batch, slice(6)), (batch[:4], slice(4))):
            same = {"x": self.X[rows], "inner": {"y": self.X[rows].sum(1, keepdim=True)}}
            found = compiled.train_step(made.init(), part)[1]
            loss = made.train_step(made.init(), same)[1]["loss"]
            torch.testing.assert_close(found["loss"], loss)
        cut, _ = program(self.loss, accumulate=4).train_step(made.init(), batch)
        torch.testing.assert_close(cut.params, expected.params)

    def test_uneven_evaluation_batches_are_weighted(self, batch: Any) -> None:
        made = program(self.loss)
        whole = ft.evaluate(made, made.init(), [batch])["loss"]
        found = ft.evaluate(made, made.init(), [batch[:5], batch[5:]])["loss"]
        assert found == pytest.approx(whole)

    def test_the_users_is_left_alone(self, batch: Any) -> None:
        made = program(self.writing)
        made.train_step(made.init(), batch)
        made.eval_step(made.init(), batch)
        assert torch.equal(batch.get("x"), self.X)
        assert torch.equal(batch.get("inner").get("y"), self.X.sum(1, keepdim=True))
        ft.testing.check_pure(made, made.init(), batch)

    def test_a_copy_is_of_the_same_class_on_the_device(self, batch: Any) -> None:
        own = copied(batch, torch.device("meta"))
        assert type(own) is type(batch)
        assert own.batch_size == batch.batch_size
        assert own.get("x").device.type == "meta"
        assert str(own) == str(batch.to("meta"))
        there = batch.to("cpu")  # which has a device of its own, that must follow
        assert copied(there, torch.device("meta")).device.type == "meta"

    def test_stacked_and_nested_ones(self, batch: Any) -> None:
        tensordict = pytest.importorskip("tensordict")
        stacked = tensordict.lazy_stack([batch[0], batch[1]])
        made = program(lambda model, batch: self.writing(model, batch[0]))
        before = stacked.get("x").clone()
        made.train_step(made.init(), (stacked, "a name"))
        assert torch.equal(stacked.get("x"), before)


class Inner:
    y: torch.Tensor


class Outer:
    x: torch.Tensor
    inner: Any
    text: str
