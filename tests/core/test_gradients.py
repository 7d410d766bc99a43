"""Gradients of one batch and of several, by autograd and by torch.func."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import functrain as ft
from functrain import tree
from functrain.core.accumulation import step_gradients
from functrain.core.gradients import GradientFunction, Gradients, by_autograd, inputs_of
from functrain.errors import LossError, ModelError, UnsupportedError
from functrain.transforms.unrolling.gradients import by_func

WAYS = pytest.mark.parametrize("way", [by_autograd, by_func])
PARTS = pytest.mark.parametrize("parts", [1, 2])


def program(module: nn.Module, loss: Callable[..., Any], **options: Any) -> ft.Program:
    return ft.program(module, loss, ft.optim.SGD(lr=1.0), **options)


def gradients(
    made: ft.Program, way: GradientFunction, batches: list[Any], scale: float | None = None
) -> Gradients:
    """The weighted mean over the batches, in the first state."""
    state = made.init()
    loss_scale = None if scale is None else {"scale": torch.tensor(scale)}
    tensors = {"params": state.params, "buffers": state.buffers, "loss_scale": loss_scale}
    return step_gradients(way, made.fixed, tensors, batches)


def weighed(model: nn.Module, batch: Any) -> ft.Loss:
    x, weight = batch
    value = model(x).square().mean()
    return ft.Loss(value, weight, {"copy": value.detach()})


def weighed_batches(*weights: float) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(3, 4, generator=generator), torch.tensor(each)) for each in weights]


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


class Reentrant(nn.Module):
    """A layer in a checkpoint of the kind that loses gradients, and one before or after it."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.first, self.inner, self.outer = first, nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_() if self.first else self.outer(x)
        x = checkpoint(self.inner, x, use_reentrant=True)
        return self.outer(x) if self.first else x


class Parallel(nn.Module):
    """A layer, and parallel to it another in a checkpoint of that kind."""

    def __init__(self, held: nn.Module) -> None:
        super().__init__()
        self.held, self.own = held, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        own = x.clone().requires_grad_()
        return checkpoint(self.held, own, use_reentrant=True) + self.own(x)


@pytest.mark.parametrize("weights", [(1.0,), (3.0,), (1.0, 3.0), (2.0, 0.5, 4.0)])
class TestBothWays:
    def test_give_the_same(self, weights: tuple[float, ...]) -> None:
        batches = weighed_batches(*weights)
        one, other = (gradients(program(layers(), weighed), way, batches) for way in WAYS.args[1])
        torch.testing.assert_close(one.grads, other.grads)
        torch.testing.assert_close(one.buffers, other.buffers)
        torch.testing.assert_close(one.loss_output.value, other.loss_output.value.detach())
        torch.testing.assert_close(one.loss_output.metrics, other.loss_output.metrics)
        assert list(one.grads) == list(other.grads)

    @WAYS
    def test_are_the_weighted_mean_in_the_order_of_the_parameters(
        self, way: GradientFunction, weights: tuple[float, ...]
    ) -> None:
        made, batches = program(nn.Linear(4, 2), weighed), weighed_batches(*weights)
        singles = [gradients(made, way, [batch]) for batch in batches]
        found = gradients(made, way, batches)
        for path in made.fixed.trainable:
            terms = [w * each.grads[path] for w, each in zip(weights, singles, strict=True)]
            torch.testing.assert_close(found.grads[path], sum(terms) / sum(weights))
        values = [w * each.loss_output.value for w, each in zip(weights, singles, strict=True)]
        torch.testing.assert_close(found.loss_output.value, sum(values) / sum(weights))
        assert list(found.grads) == list(made.fixed.trainable)

    @WAYS
    def test_a_scale_of_the_loss_is_divided_out(
        self, way: GradientFunction, weights: tuple[float, ...]
    ) -> None:
        made, batches = program(layers(), weighed), weighed_batches(*weights)
        plain, scaled = (gradients(made, way, batches, scale) for scale in (None, 8.0))
        torch.testing.assert_close(scaled.grads, plain.grads)
        torch.testing.assert_close(scaled.loss_output.value, plain.loss_output.value)

    @WAYS
    def test_the_module_trains_whatever_mode_it_is_in(
        self, way: GradientFunction, weights: tuple[float, ...]
    ) -> None:
        batches = weighed_batches(*weights)
        found = gradients(program(layers(), weighed), way, batches)
        assert found.buffers["1.num_batches_tracked"].item() == len(weights)

    def test_those_of_one_batch_are_what_autograd_gives_to_the_bit(
        self, weights: tuple[float, ...]
    ) -> None:
        module = layers()
        made, (first, *_) = program(module, weighed), weighed_batches(*weights)
        weighed(module, first).value.backward()
        found = gradients(made, by_autograd, [first]).grads
        expected = {path: p.grad for path, p in module.named_parameters()}
        assert tree.diff(dict(found), expected) == []

    def test_gradients_are_computed_under_no_grad(self, weights: tuple[float, ...]) -> None:
        made, batches = program(layers(), weighed), weighed_batches(*weights)
        expected = gradients(made, by_autograd, batches, 8.0).grads
        with torch.no_grad():
            found = gradients(made, by_autograd, batches, 8.0).grads
        assert tree.diff(dict(found), dict(expected)) == []


@WAYS
class TestEachWay:
    def test_a_micro_batch_weighs_its_samples_where_nothing_else_is_said(
        self, way: GradientFunction
    ) -> None:
        made = program(nn.Linear(2, 1, bias=False), lambda model, x: model(x).mean())
        found = gradients(made, way, [torch.zeros(1, 2), torch.ones(3, 2)])
        assert found.grads["weight"].tolist() == [[0.75, 0.75]]
        assert float(found.loss_output.weight) == 4.0

    @PARTS
    def test_frozen_parameters_take_part_and_have_no_gradient(
        self, way: GradientFunction, parts: int
    ) -> None:
        made = program(
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)),
            lambda model, x: model(x).mean(),
            trainable="1.*",
        )
        found = gradients(made, way, [torch.ones(1, 2)] * parts)
        assert list(found.grads) == ["1.weight", "1.bias"]
        assert found.grads["1.bias"].tolist() == [1.0]

    def test_frozen_parameters_are_those_of_the_state(self, way: GradientFunction) -> None:
        module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
        made = program(module, lambda model, x: model(x).mean(), trainable="1.*")
        params = {**made.init().params, "0.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        state = {"params": params, "buffers": {}, "loss_scale": None}
        found = way(inputs_of(made.fixed, state, torch.ones(1, 2)))
        assert found.grads["1.weight"].tolist() == [[3.0, 7.0]]

    def test_gradients_may_be_of_half_precision(self, way: GradientFunction) -> None:
        module = nn.Linear(2, 1, bias=False).bfloat16()
        made = program(module, lambda model, x: ft.Loss(model(x.bfloat16()).mean(), len(x) / 2))
        found = gradients(made, way, [torch.ones(2, 2), torch.zeros(6, 2)], scale=4.0)
        assert found.grads["weight"].dtype == torch.bfloat16
        assert found.grads["weight"].tolist() == [[0.25, 0.25]]


class TestHooks:
    @PARTS
    def test_are_asked_for_each_micro_batch(self, parts: int) -> None:
        module = nn.Linear(2, 1, bias=False)
        module.weight.register_hook(lambda grad: grad * torch.tensor([[1.0, 0.0]]))
        made = program(module, lambda model, x: model(x).sum())
        found = gradients(made, by_autograd, [torch.ones(1, 2)] * parts)
        assert found.grads["weight"].tolist() == [[1.0, 0.0]]

    def test_one_on_a_frozen_parameter_is_skipped(self) -> None:
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        called: list[Tensor] = []
        module[0].weight.register_hook(called.append)
        made = program(module, lambda model, x: model(x).sum(), trainable="1.*")
        found = gradients(made, by_autograd, [torch.ones(1, 2)])
        assert list(found.grads) == ["1.weight", "1.bias"]
        assert called == []


@PARTS
def test_a_forward_that_freezes_trained_parameters_is_explained(parts: int) -> None:
    def frozen(model: nn.Module, x: Tensor) -> Tensor:
        model.get_submodule("0").requires_grad_(False)
        return model(x).sum()  # type: ignore[no-any-return]

    made = program(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), frozen)
    with pytest.raises(ModelError, match=r"requires_grad off .*'0\.weight'.*trainable="):
        gradients(made, by_autograd, [torch.ones(1, 2)] * parts)


class TestReentrantCheckpoints:
    @PARTS
    @pytest.mark.parametrize("first", [True, False])
    def test_are_refused(self, first: bool, parts: int) -> None:
        made = program(Reentrant(first), lambda model, x: model(x).square().mean())
        with pytest.raises(ModelError, match="use_reentrant=False"):
            gradients(made, by_autograd, [torch.ones(2, 4) for _ in range(parts)])

    @PARTS
    def test_one_parallel_to_the_trained_layers_is_refused_where_it_holds_a_parameter(
        self, parts: int
    ) -> None:
        made = program(Parallel(nn.Linear(4, 4)), lambda model, x: model(x).square().mean())
        with pytest.raises(ModelError):
            gradients(made, by_autograd, [torch.ones(2, 4) for _ in range(parts)])

    @PARTS
    def test_one_that_loses_nothing_is_not_refused(self, parts: int) -> None:
        made = program(Parallel(nn.Tanh()), lambda model, x: model(x).square().mean())
        found = gradients(made, by_autograd, [torch.ones(2, 4) for _ in range(parts)])
        assert list(found.grads) == ["own.weight", "own.bias"]

    @PARTS
    def test_other_errors_of_a_backward_pass_stay_what_they_are(self, parts: int) -> None:
        class Broken(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x.clone()

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> Tensor:
                raise RuntimeError("mine")

        made = program(nn.Linear(2, 1), lambda model, x: Broken.apply(model(x)).sum())
        with pytest.raises(RuntimeError, match="mine") as raised:
            gradients(made, by_autograd, [torch.ones(1, 2)] * parts)
        assert not isinstance(raised.value, ModelError)


class TestParametersWithoutGradients:
    def test_one_that_only_some_micro_batches_use(self) -> None:
        module = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False), "b": nn.Linear(2, 1, bias=False)})

        def loss(model: Any, batch: Any) -> Tensor:
            name, x = batch["name"], batch["x"]
            return model[name](x).sum()

        batches = [{"name": name, "x": torch.ones(1, 2)} for name in ("b", "a", "b", "b")]
        found = gradients(program(module, loss), by_autograd, batches)
        assert {path: grad.tolist() for path, grad in found.grads.items()} == {
            "a.weight": [[0.25, 0.25]],
            "b.weight": [[0.75, 0.75]],
        }
        assert list(found.grads) == ["a.weight", "b.weight"]

    def test_one_that_nothing_uses_in_a_graph_of_very_many_paths(self) -> None:
        module = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})

        def loss(model: Any, x: Tensor) -> Tensor:
            x = model["used"](x)
            for _ in range(64):  # two paths each: 2 ** 64 in all
                x = (x + x) / 2
            return x.mean()

        found = gradients(program(module, loss), by_autograd, [torch.ones(1, 2)])
        assert list(found.grads) == ["used.weight", "used.bias"]

    @PARTS
    def test_a_sparse_one_is_refused_by_name(self, parts: int) -> None:
        module = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1))
        made = program(module, lambda model, x: model(x).mean())
        with pytest.raises(UnsupportedError, match=r"'?0\.weight'?.*sparse"):
            gradients(made, by_autograd, [torch.tensor([1, 2])] * parts)

    @PARTS
    def test_tied_gradients_are_not_added_up_twice(self, parts: int) -> None:
        class Sum(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

            def forward(self, x: Tensor) -> Tensor:
                return ((self.a + self.b) * x).sum()

        made = program(Sum(), lambda model, x: model(x))
        found = gradients(made, by_autograd, [torch.tensor([1.0, 2.0])] * parts)
        assert [grad.tolist() for grad in found.grads.values()] == [[1.0, 2.0]] * 2


class TestMetrics:
    @WAYS
    def test_of_micro_batches_must_be_the_same(self, way: GradientFunction) -> None:
        def loss(model: nn.Module, batch: Any) -> ft.Loss:
            names = ("a", "b") if len(batch) == 2 else ("a",)
            return ft.Loss(model(batch).mean(), metrics=dict.fromkeys(names, 1.0))

        made, few, many = program(nn.Linear(2, 1), loss), torch.ones(3, 2), torch.ones(2, 2)
        for batches in ([few, many], [many, few], [few, few, many]):
            with pytest.raises(LossError, match="the same metrics"):
                gradients(made, way, batches)

    @WAYS
    def test_those_that_are_values_are_merged(self, way: GradientFunction) -> None:
        def loss(model: nn.Module, x: Tensor) -> ft.Loss:
            logits, right = model(x), torch.zeros(len(x), dtype=torch.long)
            return ft.Loss(
                logits.mean(), metrics={"table": ft.metrics.ConfusionMatrix.of(logits, right, 2)}
            )

        made = program(nn.Linear(2, 2), loss)
        found = gradients(made, way, [torch.ones(3, 2), torch.ones(2, 2)])
        assert found.loss_output.metrics["table"].counts.sum() == 5

    def test_of_a_micro_batch_that_weighs_nothing_do_not_count(self) -> None:
        def loss(model: nn.Module, batch: Any) -> ft.Loss:
            x, weight, metric = batch
            return ft.Loss(model(x).mean(), weight, {"metric": metric})

        x, metrics = torch.ones(2, 4), (torch.nan, 5.0, 2.0)
        weights = [torch.tensor(each) for each in (0.0, 1.0, 3.0)]
        batches = [(x, w, torch.tensor(m)) for w, m in zip(weights, metrics, strict=True)]
        found = gradients(program(nn.Linear(4, 1), loss), by_autograd, batches)
        assert found.loss_output.metrics["metric"].item() == 2.75
        assert float(found.loss_output.weight) == 4.0


def test_the_value_of_a_loss_that_is_a_parameter_is_a_copy() -> None:
    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Parameter(torch.tensor(2.0))

    made = ft.donated(program(Single(), lambda model, x: model.only))
    _, metrics = made.train_step(made.init(), torch.ones(1))
    assert metrics["loss"].item() == 2.0


class Reversible(torch.autograd.Function):
    """Computes its forward again in the backward, as layers that keep no activations do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(x)
        return layer(x).detach()

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            torch.autograd.backward(ctx.layer(again), given[0])
        return again.grad, None


class WithReversible(nn.Module):
    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.twice = twice

    def forward(self, x: Tensor) -> Any:
        x = Reversible.apply(self.first(x), self.second)  # type: ignore[no-untyped-call]
        return self.second(x) if self.twice else x


def with_backward_inside(model: nn.Module, batch: Tensor) -> Tensor:
    model(batch).sin().mean().backward()
    return model(batch).square().mean()


class TestGradientsThatABackwardWithinWrites:
    """The plain loop finds them in ``.grad``; so must a step."""

    @pytest.mark.parametrize("twice", [False, True])
    @pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip_norm": 0.1}])
    @pytest.mark.parametrize(
        "loss", [lambda model, x: model(x).square().mean(), with_backward_inside]
    )
    def test_a_step_is_that_of_the_plain_loop(self, loss: Any, options: Any, twice: bool) -> None:
        torch.manual_seed(0)
        model, batch = WithReversible(twice), torch.randn(8, 3)
        program = ft.program(model, loss, ft.optim.SGD(lr=0.1), **options)
        state, _ = program.train_step(program.init(), batch)
        parts = batch.chunk(options.get("accumulate", 1))
        for part in parts:
            loss(model, part).backward()
        for parameter in model.parameters():
            parameter.grad.div_(len(parts))  # type: ignore[union-attr]
        if options.get("clip_norm"):
            nn.utils.clip_grad_norm_(model.parameters(), options["clip_norm"])
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        for path, parameter in model.named_parameters():
            torch.testing.assert_close(state.params[path], parameter.detach(), msg=path)
            assert not torch.equal(state.params[path], program.init().params[path])


def test_a_norm_adds_up_gradients_in_the_order_of_the_plain_loop() -> None:
    """``backward`` lays a gradient out in memory as its parameter; the norm depends on that."""

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(37, 53))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight.t().contiguous()).square().mean()

    torch.manual_seed(0)
    module, x = Transposed(), torch.randn(11, 53)
    made = ft.program(module, lambda m, x: m(x), ft.optim.AdamW(lr=1e-2), clip_norm=0.01)
    state, optimizer = made.init(), torch.optim.AdamW(module.parameters(), lr=1e-2, fused=True)
    for _ in range(3):
        state, metrics = made.train_step(state, x)
        module(x).backward()
        norm = nn.utils.clip_grad_norm_(module.parameters(), 0.01)
        assert metrics["grad_norm"] == norm
        optimizer.step()
        optimizer.zero_grad()
    assert tree.equal(state.params["weight"], module.weight.detach())
    (grad,) = torch.autograd.grad(module(x), module.weight)
    assert grad.stride() != module.weight.stride()  # or this shows nothing


class TestABackwardWithinTheLoss:
    """A local loss for a part of the model, which a plain loop trains by ``.grad``."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.shared, self.local, self.main = (nn.Linear(4, 4) for _ in range(3))

    @staticmethod
    def loss(model: Any, x: Tensor) -> Tensor:
        model.local(model.shared(x)).square().mean().backward()
        return model.main(model.shared(x)).square().mean()

    @pytest.mark.parametrize("wrap", [lambda made: made, ft.donated], ids=["plain", "donated"])
    @pytest.mark.parametrize("precision", ["float32", "fp16"])
    @pytest.mark.parametrize("accumulate", [1, 2, 4])
    def test_is_added_alike_whatever_the_step(
        self, accumulate: int, precision: Any, wrap: Any
    ) -> None:
        x = torch.randn(8, 4)
        module = self.Net()
        for part in x.chunk(accumulate):
            with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
                value = self.loss(module, part)
            (value / 1).backward()
        made = wrap(
            ft.program(
                self.Net(),
                self.loss,
                ft.optim.SGD(lr=0.1),
                accumulate=accumulate,
                precision=precision,
            )
        )
        start = made.init()
        if precision == "fp16":  # the first scale would overflow
            scale = {**start.loss_scale, "scale": torch.tensor(128.0)}
            start = attrs.evolve(start, loss_scale=scale)
        before = dict(start.params)
        after, _ = made.train_step(start, x)
        tolerance = {"rtol": 1e-2, "atol": 1e-4} if precision == "fp16" else {}
        for path, parameter in module.named_parameters():
            assert parameter.grad is not None
            moved = before[path] - after.params[path]
            expected = 0.1 * parameter.grad / accumulate
            torch.testing.assert_close(moved, expected, **tolerance, msg=path)
