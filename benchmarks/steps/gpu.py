"""The works of ``--profile gpu``: a small MLP, and GPT-2 124M in bf16 with its utilisation.

Written for a machine with an NVIDIA GPU and not run yet, because none was available. Times are the
host's, with the device synchronized at both ends of a turn.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.steps.models import GPT
from benchmarks.steps.work import MLP, Work, predict, text

CONTENDERS = (
    "plain",
    "plain-compiled",
    "plain-compiled-optimizer",
    "pure",
    "donated",
    "compiled",
    "compiled-donated",
)
_LAYERS, _WIDTH, _LENGTH, _ROWS, _VOCABULARY = 12, 768, 1024, 8, 50257
# Dense bf16 peaks in FLOP/s, from the makers' data sheets, by a part of the device's name.
_PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}


def predict_bf16(model: Any, batch: Any) -> Tensor:
    """Return the loss of a language model under bf16 autocast, the same for all contenders."""
    with torch.autocast("cuda", torch.bfloat16):
        return predict(model, batch)


_ALL = (
    attrs.evolve(MLP, name="gpu-mlp", title="small MLP on the GPU", device="cuda", steps=50),
    Work(
        "gpu-gpt2",
        "GPT-2 124M, bf16",
        partial(GPT, _LAYERS, _WIDTH, 12, _VOCABULARY, _LENGTH),
        partial(text, _ROWS, _LENGTH, _VOCABULARY),
        predict_bf16,
        steps=3,
        lead=1,
        repeats=20,
        device="cuda",
        tokens=_ROWS * _LENGTH,
    ),
)
GPU_WORKS: dict[str, Work] = {work.name: work for work in _ALL}


def flops(work: Work) -> float:
    """Count the FLOPs of a step: 6 per parameter and token, plus those of attention.

    As in the PaLM paper, attention counts in full, although causal attention needs only half.
    """
    parameters = sum(param.numel() for param in work.build().parameters())
    return work.tokens * (6 * parameters + 12 * _LAYERS * _WIDTH * _LENGTH)


def peak(device: str) -> float | None:
    """Return the dense bf16 peak of a device by its name, in FLOP/s, or ``None`` if unknown."""
    return next((peak for name, peak in _PEAKS.items() if name in device), None)


def utilisation(work: Work, seconds: float) -> str:
    """Describe tokens per second, and the model's arithmetic as a share of the device's peak."""
    device = torch.cuda.get_device_name()
    most = peak(device)
    share = "peak not known" if most is None else f"{flops(work) / seconds / most:.1%} MFU"
    return f"{work.tokens / seconds:,.0f} tokens/s, {share} ({device})"
