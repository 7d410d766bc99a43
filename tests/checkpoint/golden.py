"""The content of the golden checkpoints, and the script that wrote them.

``python tests/checkpoint/golden.py`` writes those of the present format into ``golden/``. Ones of
earlier formats are never written again: they are there to be read by all later versions.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from functrain.checkpoint import save
from functrain.checkpoint.format.manifest import FORMAT
from functrain.checkpoint.format.tensor_bytes import memory
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState

DIRECTORY = Path(__file__).parent / "golden"
PRESENT = DIRECTORY / ".".join(map(str, FORMAT))


class Point(NamedTuple):
    x: Any
    y: Any


class Color(enum.Enum):
    RED = "red"
    DEEP = 7


# The name by which this module is imported is no matter of the format.
Point.__module__ = Color.__module__ = "golden"
TYPES = (Point, Color, RunState, LoopState)
# Those that all versions of torch have that are supported.
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.complex128, torch.bool, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn),
    *(torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]


def ramp(dtype: torch.dtype) -> torch.Tensor:
    """Six elements of any dtype, of bytes that are valid in all of them."""
    tensor = torch.empty((2, 3), dtype=dtype)
    memory(tensor)[:] = bytes(index % 2 for index in range(tensor.nbytes))
    return tensor


def everything() -> dict[str, Any]:
    """Every kind of node, leaf, scalar, dtype and layout that the format has."""
    weight = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    image = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    return {
        "params": {"encoder.0.weight": weight, "decoder.weight": weight, "bias": weight[0] * 2},
        "optimizer": {"exp_avg": {"bias": torch.full((4,), 0.5)}, "step": torch.tensor(3.0)},
        "ema": {"bias": torch.full((4,), -1.0)},
        "frozen": {"embedding": torch.ones(2, 2)},
        "dtypes": {str(dtype): ramp(dtype) for dtype in DTYPES},
        "layouts": {
            "turned": weight.clone().t(),
            "channels_last": image.to(memory_format=torch.channels_last),
            "sliced": torch.arange(9.0)[::2],
            "expanded": torch.ones(1).expand(3),
            "conjugate": torch.tensor([1 + 2j]).conj(),
            "empty": torch.zeros(0, 3),
            "scalar": torch.tensor(float("nan")),
        },
        "nodes": [(), [], {}, OrderedDict(b=1, a=2), Point(1, [2]), {3: "three", -1: None}],
        "keys": {"$tensor": 1, "a.b": 2, "": 3, "\ud800": 4, "ü": 5},
        "scalars": [
            *(None, True, False, 0, -1, 1 << 63, -(1 << 100), 0.1, -0.0, 1e308),
            *(float("inf"), -float("inf"), float("nan"), 1 + 2j, complex(-0.0, float("nan"))),
            *("", "text", "\ud800", b"", b"\x00\xff", Color.RED, Color.DEEP),
        ],
        "sparse": {
            "coo": torch.sparse_coo_tensor([[0, 1], [1, 0]], [1.0, 2.0], (2, 2)),
            "csr": torch.sparse_csr_tensor([0, 1, 2], [1, 0], [1.0, 2.0], (2, 2)),
        },
        "numpy": {
            "array": np.arange(6, dtype=">i2").reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            "number": np.float32(1.5),
            "time": np.datetime64("2026-11-21"),
        },
        "torch": [torch.Size([1, 2]), torch.bfloat16, torch.device("cpu")],
    }


def run() -> RunState:
    """Return the tree that ``fit`` persists."""
    params = {"0.weight": torch.ones(2, 2), "0.bias": torch.zeros(2)}
    train = TrainState(
        params=params,
        buffers={"1.running_mean": torch.full((2,), 0.25)},
        optimizer={"step": torch.tensor(5.0), "exp_avg": {"0.bias": torch.full((2,), 0.1)}},
        scheduler={"horizon": 100},
        ema={"params": {"0.bias": torch.full((2,), 0.3)}, "step": torch.tensor(5)},
        loss_scale=None,
        rng=Rng(7),
        counters=Counters(5, 1, 2, 40, 0, torch.tensor(0)),
    )
    loop = LoopState(
        sums={"loss": (1.5, 4)},
        best={"value": 0.5, "step": 3},
        early_stop={},
        owed=None,
        log_bytes=123,
    )
    return RunState(train, loop, None, {"0": {"seen": 5}})


if __name__ == "__main__":
    metrics = {"loss": 0.5, "odd": float("nan")}
    info = {"recipe": {"lr": 0.1}, "environment": {"torch": "2.13.0"}, "seconds": 1.5}
    save(PRESENT / "everything", everything(), overwrite=True)
    save(PRESENT / "run", run(), step=5, metrics=metrics, info=info, overwrite=True)
