"""SAM and ASAM against the published procedure, written out in plain PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import ConfigurationError

STEPS = 5


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()


def loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


def batch(seed: int) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return (
        torch.randn(6, 4, generator=source, dtype=torch.float64),
        torch.randint(0, 2, (6,), generator=source),
    )


def published(rho: float, adaptive: bool) -> tuple[nn.Module, list[float]]:
    """The two steps of github.com/davda54/sam, with running statistics off in the second pass."""
    module, losses = model().train(), []
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for seed in range(STEPS):
        optimizer.zero_grad()
        value = loss(module, batch(seed))
        value.backward()
        losses.append(value.item())
        sizes = [p.abs() if adaptive else torch.ones_like(p) for p in module.parameters()]
        norm = torch.stack(
            [(s * p.grad).norm() for s, p in zip(sizes, module.parameters(), strict=True)]
        ).norm()
        statistics = copy.deepcopy(dict(module.named_buffers()))
        kept = [p.detach().clone() for p in module.parameters()]
        with torch.no_grad():
            for p, s in zip(module.parameters(), sizes, strict=True):
                p.add_(s * s * p.grad * (rho / (norm + 1e-12)))
        optimizer.zero_grad()
        loss(module, batch(seed)).backward()
        with torch.no_grad():
            for p, old in zip(module.parameters(), kept, strict=True):
                p.copy_(old)
            for name, buffer in module.named_buffers():
                buffer.copy_(statistics[name])
        optimizer.step()
    return module, losses


def run(program: ft.Program) -> tuple[ft.TrainState, list[float]]:
    state, losses = program.init(), []
    for seed in range(STEPS):
        state, metrics = program.train_step(state, batch(seed))
        losses.append(float(metrics["loss"]))
    return state, losses


def plain() -> ft.Program:
    return ft.program(model(), loss, ft.optim.SGD(0.1, momentum=0.9))


@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, False), (2.0, True)])
def test_equals_the_published_procedure(rho: float, adaptive: bool) -> None:
    state, losses = run(ft.sharpness_aware(plain(), rho, adaptive))
    module, expected = published(rho, adaptive)
    assert losses == pytest.approx(expected, rel=1e-12)
    for path, param in [*module.named_parameters(), *module.named_buffers()]:
        found = {**state.params, **state.buffers}[path]
        torch.testing.assert_close(found, param.detach(), rtol=1e-10, atol=1e-12)


def test_without_distance_it_is_the_plain_step() -> None:
    found, _ = run(ft.sharpness_aware(plain(), rho=0.0))
    expected, _ = run(plain())
    assert tree.diff(found.params, expected.params) == []


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"precision": "bf16"}, {"clip_norm": 0.1}])
def test_it_is_pure_and_donated_is_the_same(options: dict[str, Any]) -> None:
    made = ft.program(
        model().float(),
        lambda module, b: loss(module, (b[0].float(), b[1])),
        ft.optim.AdamW(0.01),
        **options,
    )
    program = ft.sharpness_aware(made, 0.1)
    state = program.init()
    before = ft.copy(state)
    first, _ = program.train_step(state, batch(0))
    second, _ = program.train_step(state, batch(0))
    assert tree.diff(before, state) == []
    assert tree.diff(first, second) == []
    assert tree.diff(run(program)[0], run(ft.donated(program))[0]) == []


def test_it_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    program = ft.sharpness_aware(plain(), 0.1)
    found, _ = run(ft.compiled(program, backend="aot_eager"))
    expected, _ = run(program)
    for path in expected.params:
        torch.testing.assert_close(found.params[path], expected.params[path], rtol=1e-6, atol=1e-8)


def test_what_has_been_transformed_already_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="apply it before compiled"):
        ft.sharpness_aware(ft.compiled(plain()))
    assert ft.sharpness_aware(ft.donated(plain())).donates
    with pytest.raises(ValueError, match="rho: expected a finite number >= 0"):
        ft.sharpness_aware(plain(), rho=-1.0)


def test_micro_batches_of_other_sizes_weigh_by_their_samples() -> None:
    """At a distance of nothing the worst point is the point itself, so it is the plain step."""
    made = ft.program(
        nn.Linear(2, 1, bias=False), lambda m, x: m(x).mean(), ft.optim.SGD(lr=1.0), accumulate=2
    )
    parts = ft.MicroBatches([torch.zeros(1, 2), torch.ones(3, 2)])
    state = made.init()
    moved, _ = ft.sharpness_aware(made, rho=0.0).train_step(state, parts)
    change = state.params["weight"] - moved.params["weight"]
    torch.testing.assert_close(change, torch.full((1, 2), 0.75))


def test_both_passes_get_the_batch_as_it_was() -> None:
    def doubled(module: nn.Module, given: dict[str, Tensor]) -> Tensor:
        mean: Tensor = module(given.pop("x") * 2).square().mean()
        return mean

    def in_place(module: nn.Module, given: dict[str, Tensor]) -> Tensor:
        mean: Tensor = module(given.pop("x").mul_(2)).square().mean()
        return mean

    x, found = batch(0)[0], []
    for one in (doubled, in_place):
        program = ft.sharpness_aware(ft.program(model(), one, ft.optim.SGD(lr=0.1)), rho=0.1)
        found.append(program.train_step(program.init(), {"x": x})[0])
    assert tree.diff(*found) == []
