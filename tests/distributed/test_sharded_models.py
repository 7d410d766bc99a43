"""Models and losses whose parts leave different things behind, on real processes.

Every rank either has the bytes of one process, or an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ranks
import torch
from sharded_runs import after_each
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.core import inspection

SHARDS = ["none", "optimizer", "all"]


class Skipping(nn.Module):
    """Takes one of its layers for each part, and never one of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(3))
        self.unused, self.scale = nn.Parameter(torch.ones(128)), nn.Parameter(torch.ones(()))
        self.empty = nn.Parameter(torch.zeros(0, 4))

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layers[int(torch.randint(3, ()))]
        out: Tensor = layer(x) * self.scale + self.empty.sum()
        return out


class Complex(nn.Module):
    """Some parts have no gradient of its second parameter, and no part one of the imaginary."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 64, dtype=torch.complex64))
        self.shift = nn.Parameter(torch.zeros(64, dtype=torch.complex64))
        self.register_buffer("steady", torch.full((2,), 0.1 + 0.3j))

    def forward(self, x: Tensor) -> Tensor:
        self.steady.mul_(1.1)  # to the same value in every part
        out = (x.to(torch.complex64) @ self.weight).conj().abs()
        return out + self.shift.real if torch.rand(()) > 0.5 else out


class Mixed(nn.Module):
    """Has parameters of four dtypes, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128, dtype=torch.bfloat16)
        self.second = nn.Linear(128, 64, dtype=torch.float64)
        self.gain = nn.Parameter(torch.ones(256, dtype=torch.float16))
        self.frozen = nn.Linear(64, 64).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(self.frozen(x).bfloat16()).double()
        out: Tensor = self.second(hidden).float() + self.gain.float().mean()
        return out


class Strided(nn.Module):
    """Has parameters whose elements lie in memory in another order than in their rows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 64, 3, padding=1)
        self.deep = nn.Conv2d(64, 32, 3).to(memory_format=torch.channels_last)
        self.turned = nn.Parameter(torch.randn(64, 32).t())

    def forward(self, x: Tensor) -> Tensor:
        image = x.view(len(x), 1, 8, 8).to(memory_format=torch.channels_last)
        out: Tensor = self.deep(torch.relu(self.conv(image))).mean((2, 3)) @ self.turned
        return out


class Written(nn.Module):
    """A buffer gets another negative zero in each part, and another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.register_buffer("zero", torch.zeros(3))
        self.register_buffer("seen", torch.zeros(0, 64))

    def forward(self, x: Tensor) -> Tensor:
        self.zero.mul_(-1.0)
        self.seen = torch.cat([self.seen, x.detach()])
        out: Tensor = self.layer(x)
        return out


class Decayed(nn.Module):
    """Its forward writes to a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.layer.weight.mul_(0.9)
        out: Tensor = self.layer(x)
        return out


class Recomputed(torch.autograd.Function):
    """Computes a layer again in the backward pass, as reversible layers do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer = layer
        with torch.no_grad():
            out: Tensor = layer(x)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            torch.autograd.backward(ctx.layer(x), grads[0])
        return x.grad, None


class Reversible(nn.Module):
    """The gradient of its middle layer comes in two pieces, and the first one fills a message."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(64, 1024), nn.Linear(1024, 1024)
        self.last = nn.Linear(1024, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = Recomputed.apply(self.first(x), self.middle)
        out: Tensor = self.last(Recomputed.apply(torch.tanh(hidden), self.middle))
        return out


class Wide(nn.Sequential):
    """Its gradients fill three messages."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 1280), nn.Linear(1280, 1024), nn.Linear(1024, 1024))


class Synchronized(nn.Sequential):
    """Exchanges statistics between processes itself."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 3), nn.SyncBatchNorm(3))


def squared(model: nn.Module, x: Tensor) -> ft.Loss:
    """Report metrics in another order for some parts."""
    value = model(x).square().mean()
    metrics = {"a": x.mean(), "b": 1.0}
    return ft.Loss(
        value, x[:, 0].gt(0).sum(), metrics if x[0, 0] > 0 else {"b": 1.0, "a": x.mean()}
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        Skipping,
        Complex,
        Mixed,
        Strided,
        Written,
        Decayed,
        Reversible,
        Wide,
        Synchronized,
    )
}
Digests = list[tuple[str, dict[str, float]]]


def steps(program: ft.Program) -> Digests:
    """Return digest and metrics after each step."""
    generator = torch.Generator().manual_seed(7)
    given = [torch.randn(size, 64, generator=generator) for size in (8, 13, 1, 6)]
    for batch in given:
        batch[0, 0] = 1.0  # no batch without weight
    return after_each(program, given)


def made(model: str, **options: Any) -> ft.Program:
    """Return a program for one process."""
    torch.manual_seed(0)
    options = {"clip_norm": 0.5, "ema": 0.9, **options}
    return ft.program(MODELS[model](), squared, ft.optim.AdamW(lr=0.01), **options)


def sharded(
    model: str, shard: Any, parts: int = 4, donated: bool = False, buffers: Any = None
) -> Digests:
    program = ft.sharded(made(model), ft.Placement(shard=shard), parts=parts, buffers=buffers)
    return steps(ft.donated(program) if donated else program)


def every_placement(model: str) -> list[Digests]:
    return [sharded(model, shard) for shard in SHARDS]


MANY = ["Skipping", "Mixed", "Strided", "Complex", "Reversible"]
MANY += [pytest.param("Wide", marks=pytest.mark.long)]  # Reversible fills messages too


@pytest.mark.row(59)
@pytest.mark.sweep("model")
@pytest.mark.parametrize("n", [3, 2])
@pytest.mark.parametrize("model", MANY)
def test_parts_that_differ_change_no_bit(model: str, n: int) -> None:
    alone = steps(made(model, accumulate=4)) if model != "Complex" else sharded(model, "none")
    assert every_placement(model) == [alone] * 3
    assert ranks.run(every_placement, n, model) == [[alone] * 3] * n


def gradients(model: str, parts: int | None) -> str:
    """Return the digest of the gradients of the first step, whole on every rank."""
    program = made(model, accumulate=1 if parts else 4)
    if parts:
        program = ft.sharded(program, ft.Placement(shard="all"), parts=parts)
    batch = torch.randn(13, 64, generator=torch.Generator().manual_seed(7))
    return tree.digest(inspection.gradients(program, program.init(seed=3), batch))


def test_gradients_are_those_of_all_parts() -> None:
    alone = gradients("Skipping", None)
    assert gradients("Skipping", 4) == alone
    assert ranks.run(gradients, 3, "Skipping", 4) == [alone] * 3


@pytest.mark.parametrize("model", ["Written", "Decayed"])
def test_one_part_is_the_plain_program(model: str) -> None:
    assert sharded(model, "all", parts=1) == steps(made(model))


def test_a_buffer_that_grows_is_that_of_the_first_part_if_asked() -> None:
    arguments = ("Written", "all", 4, False, {"seen": "first"})
    alone = sharded(*arguments)
    for n in (2, 3):
        assert ranks.run(sharded, n, *arguments) == [alone] * n


@pytest.mark.parametrize(
    ("model", "donated", "kind", "remedy"),
    [
        ("Written", False, ft.errors.UnsupportedError, '{"seen": "first"}'),
        ("Decayed", False, ft.errors.UnsupportedError, "Make them buffers"),
        ("Decayed", True, ft.errors.UnsupportedError, "Make them buffers"),
        ("Synchronized", False, ft.errors.ConfigurationError, "Use BatchNorm"),
    ],
)
def test_models_that_parts_cannot_share(
    model: str, donated: bool, kind: type[Exception], remedy: str
) -> None:
    ranks.require_error(
        kind | ft.errors.RankFailedError, remedy, sharded, 2, model, "none", 4, donated
    )


def step_on_meta(nonfinite: Any) -> ft.Program:
    """Take a step on the meta device, which has no values: asking it for one raises."""
    program = ft.sharded(made("Mixed", nonfinite=nonfinite), parts=4)
    program.train_step(program.init(device="meta"), torch.empty(8, 64, device="meta"))
    return program


def test_a_step_without_buffers_does_not_wait_for_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(globals(), "squared", lambda model, x: model(x).square().mean())
    step_on_meta("skip")
    with pytest.raises(
        ft.errors.UnsupportedError, match="meta"
    ):  # the host must know before it can raise
        step_on_meta("raise")
