"""Modules whose buffers get their shape, and some their dtype, in the forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization

import functrain as ft


class Quantized(nn.Module):
    """torch's own observers: ``[1]`` and ``[0]`` become one number per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(4, 6), nn.Linear(6, 1)
        self.fake_quant = quantization.FakeQuantize(
            observer=quantization.MovingAveragePerChannelMinMaxObserver,
            quant_min=-128,
            quant_max=127,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
        )

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fake_quant(self.linear.weight)
        return self.head(torch.tanh(nn.functional.linear(x, weight, self.linear.bias)))


class Remembering(nn.Module):
    """A buffer that depends on the batch and has another size for the last one."""

    memory: Tensor

    def __init__(self, begin: Tensor, persistent: bool = True) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(4, 3), nn.Linear(3, 1)
        self.register_buffer("memory", begin, persistent)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x)
        known = self.memory.mean().nan_to_num().to(hidden.dtype)
        self.memory = self.changed(hidden.detach() + 0.5 * known)
        return self.head(torch.sin(hidden + known))

    def changed(self, value: Tensor) -> Tensor:
        return value


class Doubling(Remembering):
    """A buffer of another dtype after the forward."""

    def changed(self, value: Tensor) -> Tensor:
        return value.double()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "torch": Quantized,
    "empty": lambda: Remembering(torch.zeros(0)),
    "not-persistent": lambda: Remembering(torch.zeros(0), persistent=False),
    "scalar": lambda: Remembering(torch.zeros(())),
    "rows": lambda: Remembering(torch.zeros(1, 3)),
    "two-rows": lambda: Remembering(torch.zeros(2, 3)),
    "double": lambda: Doubling(torch.zeros(0)),
    "double-scalar": lambda: Doubling(torch.zeros(())),
}


def program(model: Callable[[], nn.Module], **options: Any) -> ft.Program:
    optimizer = ft.optim.Adam(lr=0.05)
    return ft.program(model, lambda model, x: model(x).square().mean(), optimizer, **options)


def data() -> ft.data.Batches:
    """Five batches, the last one smaller."""
    points = torch.randn(18, 4, generator=torch.Generator().manual_seed(0))
    return ft.data.Batches(points, batch_size=4, seed=3)


def quantized_run(until: str, directory: str) -> ft.Run:
    made = program(Quantized, ema=0.9)
    return ft.fit(made, data(), until=until, directory=directory, eval_data=data())


def resume(arguments: dict[str, Any]) -> None:
    """Called in a fresh process."""
    torch.set_num_threads(arguments["threads"])
    quantized_run("7 steps", arguments["directory"])
