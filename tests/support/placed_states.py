"""States of which ranks hold parts: rows of a leaf, whole leaves, copies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from functrain.checkpoint import save
from functrain.distributed import World, current


def rows(world: World, whole: Tensor) -> DTensor:
    """Cut a tensor along its first dimension, as torch cuts it."""
    mesh = DeviceMesh("cpu", list(range(world.size)))
    size = -(-len(whole) // world.size)
    own = whole[size * world.rank : size * (world.rank + 1)].clone()
    return DTensor.from_local(
        own, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride()
    )


def owned(world: World, whole: Tensor, owner: int) -> DTensor:
    """Leave a tensor to one rank."""
    owner %= world.size
    mesh = DeviceMesh("cpu", [owner])
    own = whole.clone() if world.rank == owner else whole.new_empty(0)
    return DTensor.from_local(
        own, mesh, [Replicate()], run_check=False, shape=whole.shape, stride=whole.stride()
    )


def leaves(seed: int = 0) -> dict[str, Tensor]:
    """Return leaves of many kinds, all of which can be cut."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(37, 64, generator=generator),
        "half": torch.randn(24, 8, 16, generator=generator).bfloat16(),
        "few": torch.randn(2, 64, generator=generator),
        "one": torch.randn(1, 64, generator=generator),
        "none": torch.empty(0, 64),
        "empty_rows": torch.empty(8, 0),
        "integers": torch.arange(640).reshape(10, 64),
        "flags": torch.rand(130, generator=generator) > 0.5,
        "bytes": torch.arange(200, dtype=torch.uint8),
    }


def whole(seed: int = 0) -> dict[str, Any]:
    """Return the state of one process."""
    return {
        "params": leaves(seed),
        "optimizer": {
            "rows": leaves(seed + 1),
            "owned": leaves(seed + 2),
            "scalar": torch.tensor(0.5, dtype=torch.float64),
        },
        "step": 3,
    }


def placed(world: World, seed: int = 0) -> dict[str, Any]:
    """Return the same state on ranks: parameters are copies, the rest has one owner a byte."""
    state = whole(seed)
    slots = state["optimizer"]
    slots["rows"] = {name: rows(world, leaf) for name, leaf in slots["rows"].items()}
    slots["owned"] = {
        name: owned(world, leaf, place) for place, (name, leaf) in enumerate(slots["owned"].items())
    }
    return state


def save_apart(directory: Path) -> None:
    """Save where every rank has a directory of its own under the same name."""
    world = current()
    own = directory / str(world.rank)
    own.mkdir()
    os.chdir(own)
    save("/proc/self/cwd/state", placed(world))
