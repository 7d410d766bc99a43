"""Parameters of 16 bits: numbers that 16 bits do not hold never meet them in their dtype."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
WAYS: dict[str, Callable[[ft.Program], ft.Program]] = {
    "eager": lambda program: program,
    "donated": ft.donated,
    "compiled": lambda program: ft.compiled(program, backend="eager"),
}
ALL_WAYS = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    return x, x[:, :3].argmax(1)


def loss_of(weight: float | None = None) -> Callable[[nn.Module, Any], ft.Loss]:
    def loss(model: nn.Module, given: Any) -> ft.Loss:
        x, y = given
        out = model(x.to(next(model.parameters()).dtype)).float()
        return ft.Loss(nn.functional.cross_entropy(out, y), weight)

    return loss


def trained(
    module: nn.Module, way: Callable[[ft.Program], ft.Program], loss: Any = None, **options: Any
) -> dict[str, Tensor]:
    """Return the changes of the parameters in a few steps."""
    optimizer = options.pop("optimizer", ft.optim.SGD(lr=0.1))
    program = way(ft.program(module, loss or loss_of(), optimizer, **options))
    start, state = program.init(), program.init()
    for _ in range(5):
        state, _ = program.train_step(state, batch())
    return {path: (value - start.params[path]).float() for path, value in state.params.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for path, change in expected.items():
        torch.testing.assert_close(found[path], change, rtol=0.1, atol=4e-3)
        assert change.any()


@HALVES
@ALL_WAYS
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_scale_leaves_the_gradients_as_they_are(
    dtype: torch.dtype, way: Callable[[ft.Program], ft.Program], accumulate: int
) -> None:
    module = network()
    expected = trained(copy.deepcopy(module), way)
    scaled = trained(module.to(dtype), way, precision="fp16", accumulate=accumulate)
    assert_near(scaled, expected)


@ALL_WAYS
@pytest.mark.parametrize("weight", [70_000.0, 1e6, torch.tensor(40_000.0).half()], ids=str)
def test_micro_batches_may_weigh_more_than_16_bits_hold(
    way: Callable[[ft.Program], ft.Program], weight: Any
) -> None:
    module = network()
    expected = trained(copy.deepcopy(module), way)
    found = trained(module.half(), way, loss_of(weight), accumulate=2)
    assert_near(found, expected)


def test_many_members_train_as_one() -> None:
    module, optimizer = network().half(), ft.optim.SGD(lr=0.1)
    made = ft.program(module, loss_of(1e6), optimizer, accumulate=2)
    members = ft.population(made, seeds=[0, 0])
    state, alone = members.init(), made.init()
    for _ in range(5):
        (state, _), (alone, _) = members.train_step(state, batch()), made.train_step(alone, batch())
    for path, values in state.params.items():
        torch.testing.assert_close(values[0], alone.params[path], rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("adaptive", [False, True])
def test_sharpness_is_measured_below_the_smallest_half(adaptive: bool) -> None:
    """The factor on scaled gradients is about 1e-7."""
    module = network()
    aware = lambda program: ft.sharpness_aware(program, rho=4.0, adaptive=adaptive)  # noqa: E731
    expected = trained(copy.deepcopy(module), aware)
    plain = trained(copy.deepcopy(module), WAYS["eager"])
    assert (expected["0.weight"] - plain["0.weight"]).abs().max() > 0.01
    assert_near(trained(module.half(), aware, precision="fp16"), expected)


@HALVES
@ALL_WAYS
@pytest.mark.parametrize("average", [ft.EMA(0.9995), ft.SWA()], ids=str)
def test_an_average_follows_steps_that_16_bits_round_away(
    dtype: torch.dtype, way: Callable[[ft.Program], ft.Program], average: Any
) -> None:
    module, adam = network().to(dtype), ft.optim.AdamW(lr=1e-3, eps=1e-4)
    wide = ft.optim.Float32State(adam, master_weights=True)
    program = way(ft.program(module, loss_of(), wide, ema=average))
    state, seen = program.init(), []
    for _ in range(20):
        state, _ = program.train_step(state, batch())
        seen.append({path: value.float().clone() for path, value in state.params.items()})
    reference: Any = {"params": seen[0], average.count: torch.ones((), dtype=torch.int64)}
    for number, params in enumerate(seen[1:], start=2):
        reference = average.update(reference, params, average.due(number))
    for path, value in state.ema["params"].items():
        torch.testing.assert_close(value, reference["params"][path], rtol=1e-5, atol=1e-6)
    with program.evaluating(state, "ema") as lent:
        assert {one.dtype for one in lent.parameters()} == {dtype}
    assert program.eval_step(state, batch(), "ema")["loss"].isfinite()


def test_members_keep_their_averages_in_float32() -> None:
    made = ft.program(network().bfloat16(), loss_of(), ft.optim.SGD(lr=0.1), ema=0.99)
    members = ft.population(made, seeds=[0, 1])
    state, _ = members.train_step(members.init(), batch())
    assert {one.dtype for one in state.ema["params"].values()} == {torch.float32}
    assert members.eval_step(state, batch(), "ema")["loss"].isfinite().all()


@ALL_WAYS
def test_an_average_that_was_stored_in_16_bits_is_named(
    way: Callable[[ft.Program], ft.Program],
) -> None:
    program = way(ft.program(network().bfloat16(), loss_of(), ft.optim.SGD(lr=0.1), ema=0.9))
    state = program.init()
    stored = {path: value.bfloat16() for path, value in state.ema["params"].items()}
    old = attrs.evolve(state, ema={**state.ema, "params": stored})
    with pytest.raises(ft.errors.ParameterMismatchError, match="float32"):
        program.train_step(old, batch())
    assert program.eval_step(old, batch(), "ema")["loss"].isfinite()


def test_an_average_that_was_stored_in_16_bits_is_loaded_by_casting(tmp_path: Path) -> None:
    program = ft.program(network().bfloat16(), loss_of(), ft.optim.SGD(lr=0.1), ema=0.9)
    state = program.init()
    stored = {path: value.bfloat16() for path, value in state.ema["params"].items()}
    ft.save(tmp_path / "old", attrs.evolve(state, ema={**state.ema, "params": stored}))
    with pytest.raises(ft.errors.CheckpointMismatchError, match="float32"):
        ft.load(tmp_path / "old", like=state)
    loaded = ft.load(tmp_path / "old", like=state, cast=True)
    program.train_step(loaded, batch())


def descended(model: nn.Module) -> list[float]:
    """Return the losses of a few updates in place, as in test-time training."""
    sgd, losses = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(4):
        sgd.zero_grad()
        loss = nn.functional.cross_entropy(model(batch()[0]).float(), batch()[1])
        loss.backward()
        losses.append(loss.item())
        sgd.step()
    return losses


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_updates_within_an_autocast_count(precision: Any) -> None:
    expected = torch.tensor(descended(network()))
    assert expected[0] - expected[-1] > 0.1
    found: list[list[float]] = []

    def adapting(model: nn.Module, given: Any) -> Tensor:
        with torch.enable_grad():
            found.append(descended(copy.deepcopy(model)))
        return nn.functional.cross_entropy(model(given[0]).float(), given[1])

    program = ft.program(network(), adapting, ft.optim.SGD(lr=0.1), precision=precision)
    state = program.init()
    program.train_step(state, batch())
    with program.module(state, gradients=True) as lent:
        found.append(descended(lent))
    with program.evaluating(state, gradients=True) as lent:
        found.append(descended(copy.deepcopy(lent)))
    for losses in found:
        torch.testing.assert_close(torch.tensor(losses), expected, rtol=0, atol=0.02)


@HALVES
@ALL_WAYS
def test_a_forward_may_write_to_parameters_with_master_weights(
    dtype: torch.dtype, way: Callable[[ft.Program], ft.Program]
) -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.scale = nn.Linear(8, 3), nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                self.scale.mul_(2)
            return self.body(x) + 0 * self.scale.sum()

    sgd = ft.optim.Float32State(ft.optim.SGD(lr=1e-4), master_weights=True)
    program = way(ft.program(Doubling().to(dtype), loss_of(), sgd))
    state = program.init()
    body = state.optimizer["master"]["body.weight"].clone()
    for _ in range(3):
        state, _ = program.train_step(state, batch())
    assert state.params["scale"].eq(8).all()
    assert state.optimizer["master"]["scale"].eq(8).all()
    assert not state.optimizer["master"]["body.weight"].equal(body)
