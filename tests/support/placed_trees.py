"""Trees whose leaves are placed on several ranks, with the plain tree that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from placed_states import owned, rows
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate

from functrain.distributed import World


def cut(tensor: Tensor, world: World) -> DTensor:
    """Cut a tensor over all ranks at dimension 0; the local one is no view of another."""
    return rows(world, tensor).clone()


def plain() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(7, 3, generator=generator)
    weight[2, 1], weight[6, 0] = float("nan"), -0.0
    return {
        "weight": weight,
        "half": weight.bfloat16(),
        "eighth": weight.to(torch.float8_e4m3fn),
        "count": torch.arange(65530, 65535).to(torch.uint16),
        "mask": weight > 0,
        "spectrum": torch.complex(weight, -weight),
        "moments": [weight.square(), weight.t().contiguous()],
        "bias": torch.ones(3),
        "step": 3,
    }


def placed(world: World) -> dict[str, Any]:
    """The same tree: most leaves cut, one owned by the last rank, one replicated, one plain."""
    given = plain()
    several = ["weight", "half", "eighth", "count", "mask", "spectrum"]
    first, second = given["moments"]
    mesh = DeviceMesh("cpu", list(range(world.size)))
    replicated = DTensor.from_local(second, mesh, [Replicate()], run_check=False)
    return {
        **given,
        **{name: cut(given[name], world) for name in several},
        "moments": [owned(world, first, world.size - 1), replicated],
    }
