"""Print how much memory the state of a model takes on each of many ranks, without them.

    python -m benchmarks.plan --ranks 8,64,1024

The ranks are those of torch's fake process group and the tensors have no memory, so 7 billion
parameters on 1,024 ranks take seconds. Activations are not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore

import functrain as ft
from functrain.distributed.exchange import Exchange
from functrain.distributed.group import World
from functrain.distributed.placed import Placed
from functrain.optim.units import units
from functrain.tree.placed import local

GIB = 1 << 30


class Block(nn.Module):
    """The parameters of one layer of Llama 2 7B."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.attention = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))


class Llama(nn.Module):
    """The parameters of Llama 2 7B; it is never called."""

    def __init__(self, width: int = 4096, hidden: int = 11008, layers: int = 32) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(32000, width), nn.Linear(width, 32000, bias=False)
        self.blocks = nn.ModuleList(Block(width, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width)


def tensors(node: Any) -> Iterator[Tensor]:
    """Yield the tensors on this rank."""
    if isinstance(node, Tensor):
        yield local(node)
    elif isinstance(node, Mapping):
        for child in node.values():
            yield from tensors(child)


def size(node: Any) -> float:
    """Return the GiB of a part of a state on this rank."""
    return sum(one.numel() * one.element_size() for one in tensors(node)) / GIB


def planned(
    mode: FakeTensorMode, model: nn.Module, ranks: int, shard: Any
) -> tuple[float, float, float]:
    """Return the GiB on rank 0: parameters, optimizer state, parameters gathered for a step."""
    params = {path: one.detach() for path, one in model.named_parameters()}
    optimizer = ft.optim.AdamW(lr=1e-4)
    exchange = Exchange(World(0, ranks, dist.group.WORLD))
    elements = units(optimizer, params)
    placed = Placed.of(ft.Placement(shard=shard), exchange, params, elements, "cpu")
    with mode:
        own = placed.cut("params", params)
        moments = placed.cut("optimizer", optimizer.init(params))
    return size(own), size(moments), size(params) if "params" in placed.parts else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="8,64,1024")
    given = parser.parse_args()
    print("| ranks | shard | parameters GiB | optimizer GiB | gathered GiB |")
    print("|--:|:--|--:|--:|--:|")
    for ranks in map(int, given.ranks.split(",")):
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
        mode = FakeTensorMode()
        with mode:
            model = Llama()
        for shard in ("none", "optimizer", "all"):
            cells = " | ".join(f"{value:.2f}" for value in planned(mode, model, ranks, shard))
            print(f"| {ranks} | {shard} | {cells} |")
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
