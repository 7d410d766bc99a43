"""Gradients through training, compared with finite differences, optax and themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import functrain as ft
from functrain import optim, tree
from functrain.core import step
from functrain.errors import (
    ConfigurationError,
    NonFiniteError,
    ParameterMismatchError,
    UnsupportedError,
)
from functrain.transforms.hyperparameters import hyperparameters
from functrain.transforms.unrolling.batch_norm import BatchNormByFormula
from functrain.transforms.unrolling.gradients import by_func


@pytest.fixture(autouse=True)
def _in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Net(nn.Module):
    """Half of the hidden units are dead, and so is one parameter: gradients of exactly zero."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.dead = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        live, off = self.a(x).chunk(2, dim=1)
        return self.b(torch.cat([live.tanh(), F.relu(off - 100)], dim=1)) + 0 * self.dead


def matrices() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))


def weighted(model: nn.Module, batch: Any) -> Tensor:
    x, y, weight = batch
    each = F.cross_entropy(model(x), y, reduction="none")
    return (each * weight).sum() / weight.sum()


def batches(count: int, size: int = 8) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(size, 6, generator=generator),
            torch.randint(0, 3, (size,), generator=generator),
            torch.rand(size, generator=generator) + 0.5,
        )
        for _ in range(count)
    ]


METHODS: dict[str, Any] = {
    "SGD": optim.SGD(0.1),
    "momentum": optim.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": optim.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": optim.Adam(1e-2, weight_decay=0.01),
    "amsgrad": optim.Adam(1e-2, amsgrad=True),
    "AdamW": optim.AdamW(1e-2, weight_decay=0.1),
    "RAdam": optim.RAdam(1e-2),
    "NAdam": optim.NAdam(1e-2),
    "RMSprop": optim.RMSprop(1e-2, centered=True, momentum=0.5),
    "Adagrad": optim.Adagrad(1e-2),
    "Adadelta": optim.Adadelta(1.0),
    "Adamax": optim.Adamax(1e-2),
    "Adafactor": optim.Adafactor(1e-2, d=1.01),  # at 1.0 the first update is on a kink
    "Lion": optim.Lion(1e-3, weight_decay=0.1),
    "Muon": optim.Muon(1e-2, ns_dtype="float64"),
    "LAMB": optim.LAMB(1e-2),
    "ScheduleFreeAdamW": optim.ScheduleFreeAdamW(1e-2),
    "ScheduleFreeSGD": optim.ScheduleFreeSGD(0.1),
    "Lookahead": optim.Lookahead(optim.AdamW(1e-2), sync_period=2),
    "AdaptiveGradClip": optim.AdaptiveGradClip(optim.SGD(0.1), 0.1),
    "ClipByBlockRms": optim.ClipByBlockRms(optim.SGD(0.1), 0.1),
    "Float32State": optim.Float32State(optim.AdamW(1e-2)),
    "groups": optim.groups([("*.bias", optim.SGD(0.1, momentum=0.5)), ("*", optim.AdamW(1e-2))]),
}


def with_clipping(*norms: float) -> Any:
    """All methods without clipping and some with it, which is the same before every rule."""
    some = ("SGD", "AdamW", "Muon", "ScheduleFreeAdamW", "groups")
    cases = [(name, clip) for name in METHODS for clip in (None, *norms)]
    return pytest.mark.parametrize(
        ("name", "clip"),
        [
            pytest.param(*case, marks=[pytest.mark.long] if case[1] and case[0] not in some else [])
            for case in cases
        ],
    )


def made(optimizer: Any, model: Callable[[], nn.Module] = Net, **options: Any) -> ft.Program:
    loss = options.pop("loss", weighted)
    return ft.program(model, loss, optimizer, **options)


def numbers(program: ft.Program) -> dict[str, float]:
    """The hyperparameters that are numbers, with pairs as their first number."""
    found = hyperparameters(program.recipe).values()
    rates = {
        one.path: one.value
        for one in found
        if one.is_rate and isinstance(one.value, float) and one.location[-1] == "lr"
    }
    return rates | {
        one.path: one.value
        for one in found
        if not one.is_rate and isinstance(one.value, float) and one.value != 0
    }


def difference(function: Callable[[float], Tensor], at: float, size: float = 1e-4) -> float:
    """The derivative by a central difference of fourth order."""
    h = size * (abs(at) or 1.0)
    one, two = (function(at + k * h) - function(at - k * h) for k in (1, 2))
    return ((8 * one - two) / (12 * h)).item()


def final(
    program: ft.Program,
    values: dict[str, Any],
    given: list[Any],
    begun: ft.TrainState | None = None,
    **options: Any,
) -> Tensor:
    d = ft.differentiable(program, values)
    state, _ = ft.unrolled(d, begun or d.init(), given[:-1], **options)
    return d.eval_step(state, given[-1])["loss"]


@with_clipping(0.5)
def test_gradients_of_hyperparameters_are_finite_differences(name: str, clip: float | None) -> None:
    program = made(METHODS[name], matrices if name == "Muon" else Net, clip_norm=clip)
    given = batches(6)
    values = numbers(program)
    tensors = {path: torch.tensor(value, requires_grad=True) for path, value in values.items()}
    found = torch.autograd.grad(
        final(program, tensors, given), list(tensors.values()), allow_unused=True
    )
    for (path, value), grad in zip(values.items(), found, strict=True):
        if path.endswith("eps") or path in ("eta", "max_norm"):
            assert grad is None or grad.isfinite()
            continue
        with torch.no_grad():
            expected = difference(
                lambda x, path=path: final(program, {path: torch.tensor(x)}, given), value
            )
        got = 0.0 if grad is None else grad.item()
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-9), path


@with_clipping(1e-9, 0.5)
def test_gradients_of_initial_values_and_data_are_finite_differences(
    name: str, clip: float | None
) -> None:
    program = made(METHODS[name], matrices if name == "Muon" else Net, clip_norm=clip, ema=0.9)
    d, given = ft.differentiable(program), batches(5)
    begun = program.init()
    weight = given[1][2].clone()
    generator = torch.Generator().manual_seed(5)
    names = [path for path in begun.params if path != "dead"]
    ways = {p: torch.randn(begun.params[p].shape, generator=generator) for p in names}
    along = torch.randn(weight.shape, generator=generator)

    def outcome(size: Tensor) -> Tensor:
        params = {**begun.params, **{p: begun.params[p] + size * ways[p] for p in names}}
        data = list(given)
        data[1] = (*given[1][:2], weight + size * along)
        state, metrics = ft.unrolled(d, d.init(params=params), data[:-1])
        averaged = d.eval_step(state, data[-1], weights="ema")["loss"]
        return d.eval_step(state, data[-1])["loss"] + averaged + metrics["loss"].sum()

    size = torch.zeros((), requires_grad=True)
    (found,) = torch.autograd.grad(outcome(size), size)
    with torch.no_grad():
        expected = difference(lambda x: outcome(torch.tensor(x)), 0.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def averaged(model: nn.Module, batch: Any) -> ft.Loss:
    x, _, weight = batch
    return ft.Loss(weighted(model, batch), weight=(weight * model(x).sigmoid().mean(1)).sum())


@pytest.mark.parametrize("way", ["kept", "recomputed", "forward"])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_gradients_pass_through_the_weights_of_micro_batches(accumulate: int, way: str) -> None:
    given = batches(5)
    along = torch.randn(8, generator=torch.Generator().manual_seed(5))
    program = made(optim.SGD(0.1), loss=averaged, accumulate=accumulate)
    d = ft.differentiable(program)
    begun = d.init()

    def outcome(size: Tensor, recompute: int | None = None) -> Tensor:
        data = [(x, y, weight + size * along) for x, y, weight in given[:-1]]
        state, metrics = ft.unrolled(d, begun, data, recompute=recompute)
        return d.eval_step(state, given[-1])["loss"] + metrics["loss"].sum()

    size = torch.zeros((), requires_grad=True)
    if way == "forward":
        _, found = torch.func.jvp(outcome, (torch.zeros(()),), (torch.ones(()),))
    else:
        value = outcome(size, 2 if way == "recomputed" else None)
        (found,) = torch.autograd.grad(value, size)
    with torch.no_grad():
        expected = difference(lambda x: outcome(torch.tensor(x)), 0.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_values_are_those_of_the_rule(name: str) -> None:
    program = made(METHODS[name], matrices if name == "Muon" else Net, clip_norm=0.5, ema=0.9)
    by_rule = attrs.evolve(program, device_step=step.functional(program.fixed, by_func))
    d, given = ft.differentiable(program), batches(6)
    expected, _ = ft.steps(by_rule, program.init(), given)
    found, _ = ft.unrolled(d, d.init(), given)
    assert tree.diff(expected, found) == []


def dropout() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)
    )


@pytest.mark.parametrize("size", [1, 2, 10])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_recomputed_gradients_are_those_of_a_kept_graph(size: int, accumulate: int) -> None:
    raw = torch.tensor(-3.0, requires_grad=True)
    target = torch.full((3,), 0.1, requires_grad=True)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        return weighted(model, batch) + (model(batch[0]) - target).square().mean()

    program = made(
        optim.AdamW(ft.schedules.Cosine(0.1, steps=9)),
        dropout,
        loss=loss,
        clip_norm=0.5,
        ema=ft.EMA(0.9, every=2),
        accumulate=accumulate,
    )
    given = batches(6)
    weight = torch.rand(6, 8).requires_grad_()
    data = [(x, y, weight[at]) for at, (x, y, _) in enumerate(given)]
    begun = {path: one.clone().requires_grad_() for path, one in program.init().params.items()}

    def gradients(recompute: int | None) -> list[Tensor]:
        d = ft.differentiable(program, {"weight_decay": raw.exp()})
        state, metrics = ft.unrolled(d, d.init(params=begun), data[:-1], recompute=recompute)
        value = d.eval_step(state, data[-1])["loss"] + metrics["loss"].sum()
        found = torch.autograd.grad(value, [raw, target, weight, *begun.values()])
        return [value.detach(), *found]

    for kept, again in zip(gradients(None), gradients(size), strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-12, atol=1e-15)


def test_recomputed_steps_keep_less(monkeypatch: pytest.MonkeyPatch) -> None:
    lr = torch.tensor(0.1, requires_grad=True)
    program = made(optim.SGD(0.1))

    def nodes(**options: Any) -> int:
        d = ft.differentiable(program, {"lr": lr})
        state, _ = ft.unrolled(d, d.init(), batches(20), **options)
        waiting, seen = [state.params["a.weight"].grad_fn], set()
        while waiting:
            node = waiting.pop()
            if node is not None and node not in seen:
                seen.add(node)
                waiting += [one for one, _ in node.next_functions]
        return len(seen)

    assert nodes(recompute=5) < 20 < 500 < nodes()


def test_a_tensor_that_was_written_to_before_its_gradient_is_an_error() -> None:
    lr = torch.tensor(0.1, requires_grad=True)
    value = final(made(optim.SGD(0.1)), {"lr": lr.view_as(lr)}, batches(4), recompute=2)
    with torch.no_grad():
        lr.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def refilled(given: list[Any]) -> Iterator[Any]:
    """Batches in one buffer, as a loader may give them."""
    own = tuple(map(torch.empty_like, given[0]))
    for batch in given:
        for part, value in zip(own, batch, strict=True):
            part.copy_(value)
        yield own


@pytest.mark.parametrize("recompute", [None, 1, 3])
def test_batches_in_a_buffer_that_is_filled_again_are_each_their_own(recompute: int | None) -> None:
    lr = torch.tensor(0.1, requires_grad=True)
    d, given = ft.differentiable(made(optim.SGD(0.1)), {"lr": lr}), batches(5)

    def found(batches: Any, recompute: int | None) -> list[Tensor]:
        state, metrics = ft.unrolled(d, d.init(), batches, recompute=recompute)
        value = metrics["loss"].sum() + d.eval_step(state, given[-1])["loss"]
        return [metrics["loss"].detach(), *torch.autograd.grad(value, lr)]

    for one, other in zip(found(refilled(given), recompute), found(given, None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.parametrize("wrap", [list, ft.MicroBatches], ids=["batches", "micro-batches"])
def test_a_batch_that_changes_after_its_step_leaves_recomputed_gradients_alone(wrap: Any) -> None:
    def gradient(change: float) -> float:
        lr = torch.tensor(0.1, requires_grad=True)
        given = batches(5)
        pairs = [wrap([given[at], given[at + 1]]) for at in range(4)]
        program = made(optim.SGD(0.1), accumulate=2)
        value = final(program, {"lr": lr}, [*pairs, given[-1]], recompute=2)
        for x, _, _ in given:
            x.add_(change)
        return torch.autograd.grad(value, lr)[0].item()

    assert gradient(1.0) == gradient(0.0)


def test_gradients_of_recomputed_gradients_are_refused() -> None:
    lr = torch.tensor(0.1, requires_grad=True)
    value = final(made(optim.SGD(0.1)), {"lr": lr}, batches(4), recompute=2)
    with pytest.raises(UnsupportedError, match=r"recompute: .* leave it out"):
        torch.autograd.grad(value, lr, create_graph=True)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("recompute", [None, 2])
def test_running_statistics_have_gradients(recompute: int | None, momentum: float | None) -> None:
    def model() -> nn.Module:
        norm = nn.BatchNorm2d(4, momentum=momentum)
        return nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), norm, nn.Flatten(), nn.Linear(8, 3)
        )

    program, given = made(optim.SGD(0.1), model), batches(5)
    lr = torch.tensor(0.1, requires_grad=True)
    value = final(program, {"lr": lr}, given, recompute=recompute)
    (found,) = torch.autograd.grad(value, lr)
    with torch.no_grad():
        expected = difference(lambda x: final(program, {"lr": torch.tensor(x)}, given), 0.1)
    assert found.item() == pytest.approx(expected, rel=1e-7)
    state, _ = ft.steps(program, program.init(), given[:-1])
    d = ft.differentiable(program)
    torch.testing.assert_close(ft.unrolled(d, d.init(), given[:-1])[0].buffers, state.buffers)
    torch.testing.assert_close(value.detach(), program.eval_step(state, given[-1])["loss"])


@pytest.mark.parametrize("way", ["vmap", "jvp", "jacfwd", "grad", "dual"])
def test_forward_mode_and_torch_func_give_the_same_gradients(way: str) -> None:
    program, given = made(optim.AdamW(1e-2), dropout, nonfinite="ignore", clip_norm=0.5), batches(4)

    begun = program.init()

    def outcome(lr: Tensor) -> Tensor:
        return final(program, {"lr": lr}, given, begun)

    lr = torch.tensor(0.02, requires_grad=True)
    (expected,) = torch.autograd.grad(outcome(lr), lr)
    lr = lr.detach()
    if way == "jvp":
        _, found = torch.func.jvp(outcome, (lr,), (torch.ones_like(lr),))
    elif way == "jacfwd":
        found = torch.func.jacfwd(outcome, randomness="same")(lr)
    elif way == "grad":
        found = torch.func.grad(outcome)(lr)
    elif way == "vmap":
        rates = torch.stack([lr, 2 * lr])
        found = torch.func.vmap(torch.func.grad(outcome), randomness="same")(rates)[0]
    else:
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(lr, torch.ones_like(lr))
            found = torch.autograd.forward_ad.unpack_dual(outcome(dual)).tangent
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_vmap_needs_a_program_that_asks_nothing() -> None:
    program, given = made(optim.SGD(0.1)), batches(3)
    begun = program.init()
    with pytest.raises(UnsupportedError, match='make the program with nonfinite="ignore"'):
        torch.func.vmap(lambda lr: final(program, {"lr": lr}, given, begun))(torch.rand(2))


def test_second_derivatives_are_those_of_first_ones() -> None:
    program, given = made(optim.SGD(0.1, momentum=0.9)), batches(4)

    def slope(lr: Tensor) -> Tensor:
        lr = lr if lr.requires_grad else lr.requires_grad_()
        return torch.autograd.grad(final(program, {"lr": lr}, given), lr, create_graph=True)[0]

    lr = torch.tensor(0.1, requires_grad=True)
    (found,) = torch.autograd.grad(slope(lr), lr)
    expected = difference(lambda x: slope(torch.tensor(x)).detach(), 0.1)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_learning_rate_for_each_step() -> None:
    program, given = made(optim.SGD(ft.schedules.Cosine(0.3, steps=5))), batches(6)
    rates = torch.linspace(0.2, 0.05, 5).requires_grad_()
    value = final(program, {"lr": lambda number: rates[number]}, given)
    (found,) = torch.autograd.grad(value, rates)
    for at in range(5):
        way = torch.zeros(5)
        way[at] = 1.0

        def moved(x: float, way: Tensor = way, at: int = at) -> Tensor:
            now = rates.detach() + (x - rates.detach()[at]) * way
            return final(program, {"lr": lambda number: now[number]}, given)

        expected = difference(moved, rates[at].item())
        assert found[at].item() == pytest.approx(expected, rel=1e-6)


def test_schedules_and_metrics_stay_those_of_the_program() -> None:
    program, given = made(optim.SGD(ft.schedules.Cosine(0.3, steps=5)), clip_norm=0.5), batches(4)
    d = ft.differentiable(program, {"clip_norm": torch.tensor(0.5, requires_grad=True)})
    expected, rows = ft.steps(program, program.init(), given)
    state, metrics = ft.unrolled(d, d.init(), given)
    assert list(metrics) == list(rows)
    for name, values in rows.items():
        torch.testing.assert_close(metrics[name].detach(), values, rtol=1e-12, atol=0)
    assert state.counters.step == 4
    assert tree.diff(state.scheduler, expected.scheduler) == []


def test_a_tensor_of_the_parameters_in_the_loss_is_another_argument() -> None:
    """The gradient of a step is that by its own parameters, not by all uses of their tensors."""
    begun = torch.tensor([1.0, 2.0], requires_grad=True)

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return (model.weight[0] * begun * batch).sum()  # type: ignore[index, union-attr]

    program = ft.program(lambda: nn.Linear(2, 1, bias=False), loss, optim.SGD(0.1))
    d = ft.differentiable(program)
    state, _ = d.train_step(d.init(params={"weight": begun.unsqueeze(0)}), torch.ones(2))
    torch.testing.assert_close(state.params["weight"][0], begun - 0.1 * begun)


def test_the_given_state_is_not_changed() -> None:
    program = made(optim.AdamW(1e-2), dropout)
    d = ft.differentiable(program, {"lr": torch.tensor(0.1, requires_grad=True)})
    begun = d.init()
    kept = ft.copy(begun)
    ft.unrolled(d, begun, batches(3))
    ft.unrolled(d, begun, batches(3), recompute=2)
    assert tree.diff(begun, kept) == []


def test_without_gradients_nothing_keeps_a_graph() -> None:
    d = ft.differentiable(made(optim.AdamW(1e-2), dropout), {"lr": torch.tensor(0.1)})
    with torch.no_grad():
        state, metrics = ft.unrolled(d, d.init(), batches(3))
    leaves = [leaf for _, leaf in tree.items(state) if isinstance(leaf, Tensor)]
    assert not any(one.requires_grad for one in [*leaves, *metrics.values()])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.1, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.unsqueeze(1).expand(-1, 3, -1)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 3, 2))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool = False) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.stem = nn.Linear(6, 6)
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x)
        return torch.utils.checkpoint.checkpoint(self.body, hidden, use_reentrant=self.reentrant)


@pytest.mark.parametrize("model", [Attention, Recurrent])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_models_with_kernels_of_their_own(model: Any, dtype: torch.dtype) -> None:
    program = made(optim.SGD(0.1, momentum=0.9), lambda: model().to(dtype))
    given = [(x.to(dtype), y, w.to(dtype)) for x, y, w in batches(4)]
    lr = torch.tensor(0.1, requires_grad=True)
    (found,) = torch.autograd.grad(final(program, {"lr": lr}, given), lr)
    exact = made(optim.SGD(0.1, momentum=0.9), lambda: model().to(dtype).double())
    with torch.no_grad():
        expected = difference(lambda x: final(exact, {"lr": torch.tensor(x)}, batches(4)), 0.1)
    close = 1e-6 if dtype is torch.float64 else 1e-2
    assert found.item() == pytest.approx(expected, rel=close)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_refused(reentrant: bool) -> None:
    program = made(optim.SGD(0.1), lambda: Checkpointed(reentrant))
    with pytest.raises(UnsupportedError, match=r"activation checkpointing.*recompute=1"):
        final(program, {"lr": torch.tensor(0.1, requires_grad=True)}, batches(3))


def test_a_parameter_that_the_forward_writes_to_is_refused() -> None:
    class Following(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online = nn.Linear(6, 3)
            self.target = nn.Linear(6, 3).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.target.weight.lerp_(self.online.weight, 0.5)
            return self.online(x) - self.target(x)

    d = ft.differentiable(made(optim.SGD(0.1), Following))
    with pytest.raises(UnsupportedError, match=r"writes to parameter 'target.weight'"):
        ft.unrolled(d, d.init(), batches(2))


def test_instance_norm_with_running_statistics_is_refused() -> None:
    def model() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (2, 3)),
            nn.InstanceNorm1d(2, track_running_stats=True),
            nn.Flatten(),
            nn.Linear(6, 3),
        )

    d = ft.differentiable(made(optim.SGD(0.1), model))
    with pytest.raises(UnsupportedError, match="instance_norm with running statistics"):
        ft.unrolled(d, d.init(), batches(2))


def test_a_step_that_is_not_finite_is_named() -> None:
    given = batches(4)
    given[2] = (given[2][0] * float("nan"), *given[2][1:])
    d = ft.differentiable(made(optim.SGD(0.1)), {"lr": torch.tensor(0.1, requires_grad=True)})
    with pytest.raises(NonFiniteError, match="step 2"):
        ft.unrolled(d, d.init(), given)


def eager() -> ft.Program:
    return made(optim.SGD(0.1))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda: ft.compiled(eager(), backend="eager"), "takes an eager program"),
        (lambda: ft.checked(eager()), "takes an eager program"),
        (lambda: ft.differentiable(eager()), "takes an eager program"),
        (lambda: ft.sharpness_aware(eager()), "sharpness_aware"),
        (lambda: made(optim.from_torch(torch.optim.SGD, lr=0.1)), "from_torch"),
        (lambda: made(optim.SGD(0.1), nonfinite="skip"), 'nonfinite="skip"'),
        (lambda: made(optim.SGD(0.1), precision="fp16"), 'precision="fp16"'),
        (lambda: made(optim.Lookahead(optim.SGD(0.1), reset_state=True)), "reset_state"),
        (lambda: eager().init(), "expected a functrain.Program, got a TrainState"),
    ],
)
def test_programs_without_derivatives_are_refused(program: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ft.differentiable(program(), {"lr": torch.tensor(0.1, requires_grad=True)})


@pytest.mark.parametrize(
    ("register", "name"),
    [
        (lambda m: m[0].weight.register_hook(lambda g: 2 * g), r"parameter 0\.weight"),
        (lambda m: m[1].register_full_backward_hook(lambda *_: None), "module 1"),
        (lambda m: m.register_full_backward_pre_hook(lambda *_: None), "module Sequential"),
    ],
    ids=["parameter", "module", "before a module"],
)
def test_gradient_hooks_are_refused(register: Any, name: str) -> None:
    """The backward pass through the steps would call them too, with gradients of another kind."""
    model = matrices()
    register(model)
    program = made(optim.SGD(0.1), model)  # type: ignore[arg-type]
    for call in (ft.differentiable, lambda one: ft.population(one, seeds=[0, 1])):
        with pytest.raises(ConfigurationError, match=rf"gradient hooks of the model \({name}\)"):
            call(program)


@pytest.mark.parametrize("way", ["reverse", "forward"])
def test_a_gradient_hook_of_an_activation_is_refused(way: str) -> None:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        out = model(batch[0])
        out.register_hook(lambda grad: 2 * grad)
        return out.square().mean()

    program, given = made(optim.SGD(0.1), loss=loss), batches(3)
    begun = program.init()

    def outcome(lr: Tensor) -> Tensor:
        return final(program, {"lr": lr}, given, begun)

    def slope(lr: Tensor) -> Any:
        return torch.func.jvp(outcome, (lr,), (torch.tensor(1.0),))

    call = outcome if way == "reverse" else slope
    with pytest.raises(UnsupportedError, match="the forward registers a gradient hook"):
        call(torch.tensor(0.1))


def test_a_gradient_hook_of_a_frozen_parameter_is_accepted() -> None:
    model = matrices()
    model[0].weight.register_hook(lambda grad: 2 * grad)  # type: ignore[index, union-attr]
    program = made(optim.SGD(0.1), model, trainable="2.*")  # type: ignore[arg-type]
    lr = torch.tensor(0.1, requires_grad=True)
    final(program, {"lr": lr}, batches(3)).backward()
    assert lr.grad is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"momentun": 0.1}, "did you mean 'momentum'"),
        ({"lr": torch.ones(2)}, r"'lr': expected a number or a 0-dim tensor of floats"),
        ({"momentum": torch.tensor(1)}, "expected a number or a 0-dim tensor of floats"),
        ({"lr.lr": 0.1}, "as a function of the step"),
        ([("lr", 0.1)], "hyperparameters: expected a dict"),
    ],
    ids=str,
)
def test_wrong_hyperparameters_are_refused(values: Any, message: str) -> None:
    program = made(optim.SGD(ft.schedules.Linear(0.1, steps=9)))
    with pytest.raises(ConfigurationError, match=message):
        ft.differentiable(program, values)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lr", -0.1, "SGD: lr: expected a finite number >= 0"),
        ("lr", scalar(-0.1), "SGD: lr: expected a finite number >= 0"),
        ("lr", scalar(float("nan")), "SGD: lr: expected a finite number >= 0"),
        ("lr", "x", "SGD: lr: expected"),
        ("lr", None, "SGD: lr: expected"),
        ("lr", {"a": 0.1}, "SGD: lr: expected a number or a schedule"),
        ("lr", ft.schedules.Linear, "SGD: lr: expected a number or a schedule, not a class"),
        ("momentum", scalar(-1.0), "SGD: momentum: expected"),
        ("clip_norm", scalar(-1.0), "clip_norm: expected a number above 0"),
        ("clip_value", scalar(0.0), "clip_value: expected a number above 0"),
        ("ema", scalar(1.5), "EMA: decay: expected a number from 0 to 1"),
        ("ema", "x", "EMA: decay: expected a number from 0 to 1"),
        ("betas", (scalar(1.9), 0.9), r"AdamW: betas\[0\]: expected a number in \[0, 1\)"),
        ("1.betas", (0.9, scalar(1.9)), r"AdamW: betas\[1\]: expected a number in \[0, 1\)"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(path: str, value: Any, message: str) -> None:
    optimizer: Any = optim.AdamW(0.1) if path == "betas" else optim.SGD(0.1, momentum=0.9)
    if path == "1.betas":
        optimizer = optim.groups([("*.bias", optim.SGD(0.1)), ("*", optim.AdamW(0.1))])
    with pytest.raises(ConfigurationError, match=message):
        ft.differentiable(made(optimizer, ema=0.9), {path: value})


@pytest.mark.parametrize("rate", [None, "x", -0.1, scalar(-0.1), float("nan"), True])
def test_learning_rates_of_a_step_out_of_range_are_refused(rate: Any) -> None:
    d = ft.differentiable(eager(), {"lr": lambda number: rate if number else 0.1})
    with pytest.raises(ConfigurationError, match="'lr of step 1': expected a finite number >= 0"):
        ft.unrolled(d, d.init(), batches(2))


def test_a_zero_as_tensor_leaves_no_term_out() -> None:
    program = made(optim.SGD(0.1, momentum=0.9, nesterov=True))
    momentum = scalar(0.0)
    final(program, {"momentum": momentum}, batches(4)).backward()
    assert momentum.grad is not None
    assert momentum.grad != 0


def test_hyperparameters_that_need_another_state_are_refused() -> None:
    d = ft.differentiable(eager(), {"momentum": torch.tensor(0.9, requires_grad=True)})
    with pytest.raises(ParameterMismatchError, match="momentum"):
        ft.unrolled(d, eager().init(), batches(2))
    ft.unrolled(d, d.init(), batches(2))


def test_only_differentiable_programs_are_unrolled() -> None:
    with pytest.raises(ConfigurationError, match=r"functrain.differentiable\(program"):
        ft.unrolled(eager(), eager().init(), batches(2))
    d = ft.differentiable(eager())
    with pytest.raises(ConfigurationError, match="expected a list"):
        ft.unrolled(d, d.init(), batches(1)[0][0])
    with pytest.raises(ConfigurationError, match="recompute: expected a number of steps"):
        ft.unrolled(d, d.init(), batches(2), recompute=0)
    with pytest.raises(ConfigurationError, match="cannot be donated"):
        ft.donated(d)
    with pytest.raises(ConfigurationError, match="given to fit"):
        ft.fit(d, batches(2), until="2 steps")


@pytest.mark.parametrize(
    "build",
    [
        lambda one: made(optim.SGD(one)),
        lambda one: made(optim.AdamW(1e-2, weight_decay=one)),
        lambda one: made(optim.AdamW(1e-2, betas=(one, 0.9))),
        lambda one: made(optim.Lookahead(optim.groups([("*", optim.SGD(0.1, momentum=one))]))),
        lambda one: made(optim.SGD(0.1), clip_norm=one),
        lambda one: made(optim.SGD(0.1), ema=one),
    ],
    ids=["lr", "weight decay", "betas", "nested", "clip", "ema"],
)
def test_a_plain_program_refuses_hyperparameters_with_a_graph(build: Any) -> None:
    build(torch.tensor(0.5))
    with pytest.raises(ConfigurationError, match=r"functrain.differentiable\(program"):
        build(torch.tensor(0.5, requires_grad=True))


def test_bf16_gradients_are_near_those_of_float32() -> None:
    def found(precision: Any) -> Tensor:
        program = made(
            optim.SGD(0.1, momentum=0.9), lambda: matrices().float(), precision=precision
        )
        lr = torch.tensor(0.1, requires_grad=True)
        given = [(x.float(), y, w.float()) for x, y, w in batches(5)]
        return torch.autograd.grad(final(program, {"lr": lr}, given), lr)[0]

    assert found("bf16").item() == pytest.approx(found("float32").item(), rel=3e-2)


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_takes_statistics_of_bf16_in_float32_as_torch_does(training: bool) -> None:
    x = (torch.randn(64, 6, generator=torch.Generator().manual_seed(0)) + 30).bfloat16()

    def results(by_formula: bool) -> list[Tensor]:
        layer = nn.BatchNorm1d(6).float().train(training)
        with BatchNormByFormula() if by_formula else contextlib.nullcontext():
            out = layer(x)
        assert out.dtype is torch.bfloat16
        return [out.float(), *layer.buffers()]

    out, *statistics = results(True)
    expected, *others = results(False)
    torch.testing.assert_close(out, expected, rtol=2**-8, atol=1e-4)  # one rounding to bf16
    torch.testing.assert_close(statistics, others, rtol=1e-5, atol=1e-6)


@pytest.mark.long  # finite differences show the same, and JAX compiles for seconds
@pytest.mark.parametrize("clip", [0.5, None])
@pytest.mark.parametrize("name", ["AdamW", "Adam", "momentum"])
def test_gradients_are_those_of_optax(name: str, clip: float | None) -> None:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def value(p: Any, x: Any, y: Any, w: Any) -> Any:
        logits = jnp.tanh(x @ p["0.weight"].T) @ p["2.weight"].T
        each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
        return (each * w).sum() / w.sum()

    def chain(h: Any) -> Any:
        decay = optax.add_decayed_weights(h["weight_decay"])
        if name == "momentum":
            return optax.chain(decay, optax.sgd(h["lr"], momentum=h["momentum"]))
        if name == "Adam":
            return optax.chain(decay, optax.adam(h["lr"], eps=h["eps"]))
        return optax.adamw(h["lr"], weight_decay=h["weight_decay"], eps=h["eps"])

    def clipped(grads: Any) -> Any:
        norm = jnp.sqrt(sum((one**2).sum() for one in jax.tree.leaves(grads)))
        factor = 1.0 if clip is None else jnp.minimum(clip / (norm + 1e-6), 1.0)
        return jax.tree.map(lambda one: one * factor, grads)

    program = made(METHODS[name], matrices, clip_norm=clip)
    given, begun = batches(6), program.init().params
    values = {"lr": 0.1 if name == "momentum" else 1e-2, "weight_decay": 0.01}
    values["weight_decay"] = 0.1 if name == "AdamW" else 0.01
    values |= {"momentum": 0.9} if name == "momentum" else {"eps": 1e-8}

    def in_jax(h: Any, p: Any, weights: Any) -> Any:
        optimizer = chain(h)
        state = optimizer.init(p)
        for at, (x, y, _) in enumerate(given[:-1]):
            grads = clipped(jax.grad(value)(p, jnp.array(x), jnp.array(y), weights[at]))
            updates, state = optimizer.update(grads, state, p)
            p = optax.apply_updates(p, updates)
        return value(p, *map(jnp.array, given[-1]))

    h = {path: torch.tensor(one, requires_grad=True) for path, one in values.items()}
    weights = torch.stack([w for *_, w in given[:-1]]).requires_grad_()
    params = {path: one.clone().requires_grad_() for path, one in begun.items()}
    d = ft.differentiable(program, h)
    data = [(x, y, w) for (x, y, _), w in zip(given[:-1], weights, strict=True)]
    state, _ = ft.unrolled(d, d.init(params=params), data)
    loss = d.eval_step(state, given[-1])["loss"]
    found = torch.autograd.grad(loss, [*h.values(), *params.values(), weights])
    arrays = (
        {path: jnp.array(one) for path, one in values.items()},
        {path: jnp.array(one) for path, one in begun.items()},
        jnp.array(weights.detach()),
    )
    theirs = jax.grad(in_jax, argnums=(0, 1, 2))(*arrays)
    expected = [*(theirs[0][p] for p in h), *(theirs[1][p] for p in params), theirs[2]]
    for one, other in zip(found, expected, strict=True):
        other = torch.tensor(jax.device_get(other))
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13 * other.abs().max().item())
