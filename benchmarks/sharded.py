"""Time and memory of a sharded step against DDP and FSDP2, and the bytes each ends with.

    python -m benchmarks.sharded [--repeats 30]

All contenders of a number of ranks run in the same processes over gloo with one thread, and take
turns, so other load on the machine affects all of them. Each keeps its smallest time. The ratio of
two of these is worth more than the times, and a shared machine makes both uncertain.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import functrain as ft
from functrain import tree
from functrain.distributed import leave

Step: TypeAlias = Callable[[], None]
Whole: TypeAlias = Callable[[], dict[str, Tensor]]
Contender: TypeAlias = tuple[Step, Whole]

BATCH = 16
LR = 1e-3


class GPT(nn.Module):
    """Two blocks over 256 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, 128), nn.Parameter(torch.zeros(64, 128))
        layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(128, 256, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        out: Tensor = self.head(self.blocks(self.tokens(x) + self.places, mask, is_causal=True))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 128), nn.Linear(128, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"tiny MLP": mlp, "small GPT": GPT}


def model_and_batch(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    if name == "tiny MLP":
        return model, (torch.randn(BATCH, 64), torch.randint(0, 10, (BATCH,)))
    return model, (torch.randint(0, 256, (BATCH, 64)), torch.randint(0, 256, (BATCH, 64)))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, -2), y.flatten())


def of_torch(name: str, wrap: Callable[[nn.Module], nn.Module]) -> Contender:
    """Return the usual loop over a wrapped module, on this rank's share of the batch."""
    module, batch = model_and_batch(name)
    model = wrap(module)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, foreach=True)
    rank, size = dist.get_rank(), dist.get_world_size()
    own = (batch[0].chunk(size)[rank], batch[1].chunk(size)[rank])

    def step() -> None:
        optimizer.zero_grad()
        loss(model, own).backward()
        optimizer.step()

    return step, lambda: {n: p.detach() for n, p in module.named_parameters()}


def fully_sharded(module: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    fully_shard(module, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
    return module


def ours(name: str, parts: int | None, shard: Any = "none") -> Contender:
    """Return the step of a donated program; without ``parts``, of the plain one."""
    module, batch = model_and_batch(name)
    program = ft.program(module, loss, ft.optim.AdamW(lr=LR, weight_decay=0.01))
    if parts is not None:
        program = ft.sharded(program, ft.Placement(shard=shard), parts=parts)
    program = ft.donated(program)
    held = [program.init()]

    def step() -> None:
        held[0], _ = program.train_step(held[0], batch)

    return step, lambda: dict(program.gathered(held[0]).params)


def contenders(name: str, ranks: int) -> dict[str, Callable[[], Contender]]:
    wrapped: dict[str, Callable[[nn.Module], nn.Module]] = {
        "DDP": DistributedDataParallel,
        "FSDP2": fully_sharded,
    }
    found: dict[str, Callable[[], Contender]] = {}
    for title, wrap in wrapped.items():
        found[title] = functools.partial(of_torch, name, wrap)
    for shard in ("none", "optimizer", "all"):
        found[f"functrain, {shard!r}, 4 parts"] = functools.partial(ours, name, 4, shard)
    if ranks < 4:
        title = f"functrain, 'none', {ranks} part{'s' * (ranks > 1)}"
        found[title] = functools.partial(ours, name, ranks)
    return found


def timed(made: dict[str, Contender], repeats: int) -> dict[str, float]:
    """Return the smallest time of each in milliseconds; they take turns."""
    best = dict.fromkeys(made, float("inf"))
    for repeat in range(repeats + 3):
        for title, (step, _) in made.items():
            start = time.perf_counter()
            step()
            if repeat >= 3:
                best[title] = min(best[title], 1000 * (time.perf_counter() - start))
    return best


def run_rank(rank: int, ranks: int, port: int, repeats: int, results: Any) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for name in MODELS:
        made, digests = {}, {}
        for title, make in contenders(name, ranks).items():
            step, whole = make()
            for _ in range(3):
                step()
            digests[title] = tree.digest(whole())[:8]
            made[title] = (step, whole)
        times = timed(made, repeats)
        if rank == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            results.put((name, ranks, times, digests, peak))
    leave()


def table(name: str, ranks: int, times: dict[str, float], digests: dict[str, str]) -> str:
    lines = [
        f"\n## {name}, {ranks} rank{'s' * (ranks > 1)}\n",
        "| contender | min ms | ratio to DDP | digest after 3 steps |\n|:--|--:|--:|:--|",
    ]
    for title, best in times.items():
        lines.append(f"| {title} | {best:.2f} | {best / times['DDP']:.2f} | `{digests[title]}` |")
    return "\n".join(lines)


def cost_of_parts(name: str, repeats: int) -> str:
    made = {"plain": ours(name, None)} | {f"{k} parts": ours(name, k) for k in (1, 2, 4, 8)}
    times = timed(made, repeats)
    cells = " | ".join(f"{times[title] / times['plain']:.2f}" for title in made)
    return f"| {name} | {times['plain']:.2f} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--ranks", default="1,2,4")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for ranks in map(int, given.ranks.split(",")):
        results, port = context.SimpleQueue(), 29000 + os.getpid() % 1000 + ranks
        arguments = (ranks, port, given.repeats if ranks < 4 else 3, results)
        multiprocessing.start_processes(run_rank, arguments, ranks, start_method="spawn")
        while not results.empty():
            name, _, times, digests, peak = results.get()
            print(table(name, ranks, times, digests))
            print(f"\nLargest resident memory of rank 0, all contenders together: {peak:.0f} MB")
            sys.stdout.flush()
    torch.set_num_threads(1)
    print("\n## Parts in one process, ratio to the plain program\n")
    print("| model | plain ms | plain | 1 part | 2 parts | 4 parts | 8 parts |")
    print("|:--|--:|--:|--:|--:|--:|--:|")
    for name in MODELS:
        print(cost_of_parts(name, given.repeats))


if __name__ == "__main__":
    main()
