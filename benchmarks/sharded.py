"""Time and memory of a sharded step against DDP and FSDP2, and the bytes each ends with.

    python -m benchmarks.sharded [--repeats 30] [--ranks 1,2,4]

All contenders of a number of ranks run in the same processes over gloo with one thread, and take
turns, so other load on the machine affects all of them. Wall time depends on that load in spite of
it; the CPU time of a rank (all its threads, those of gloo too) does so less. Memory is how much
more than before a process of its own has at its peak in five steps.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import functrain as ft
from benchmarks.steps import memory
from functrain import tree
from functrain.distributed import leave

Step: TypeAlias = Callable[[], None]
Whole: TypeAlias = Callable[[], dict[str, Tensor]]
Contender: TypeAlias = tuple[Step, Whole]


class Times(NamedTuple):
    """Milliseconds of a step."""

    wall: list[float]
    cpu: list[float]


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
    found: dict[str, Callable[[], Contender]] = {
        "DDP": functools.partial(of_torch, name, DistributedDataParallel),
        "FSDP2": functools.partial(of_torch, name, fully_sharded),
    }
    cases: list[tuple[str, int]] = [("none", ranks)]
    cases += [("optimizer", ranks), ("all", ranks)] if ranks > 1 else []
    for shard, parts in [*cases, *([("none", 4)] if ranks < 4 else [])]:
        title = f"functrain, {shard}, {parts} part{'s' * (parts > 1)}"
        found[title] = functools.partial(ours, name, parts, shard)
    return found


def timed(made: dict[str, Step], repeats: int) -> dict[str, Times]:
    """Return the times of each; they take turns."""
    found = {title: Times([], []) for title in made}
    for repeat in range(repeats + 3):
        for title, step in made.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            if repeat >= 3:
                found[title].wall.append(1000 * (time.perf_counter() - wall))
                found[title].cpu.append(1000 * (time.process_time() - cpu))
    return found


def join(rank: int, ranks: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    dist.barrier()


def measure_times(rank: int, ranks: int, port: int, name: str, repeats: int, results: Any) -> None:
    join(rank, ranks, port)
    made, digests = {}, {}
    for title, make in contenders(name, ranks).items():
        step, whole = make()
        for _ in range(3):
            step()
        digests[title] = tree.digest(whole())[:8]
        made[title] = step
    times = timed(made, repeats)
    if rank == 0:
        results.put((times, digests))
    leave()


def measure_memory(rank: int, ranks: int, port: int, name: str, title: str, results: Any) -> None:
    join(rank, ranks, port)
    memory.forget_peak()
    before = memory.resident()
    step, _ = contenders(name, ranks)[title]()
    for _ in range(5):
        step()
    if rank == 0:
        results.put((memory.highest() - before) / 2**20)
    leave()


def launched(function: Callable[..., None], ranks: int, *args: Any) -> Any:
    """Return what rank 0 puts into the queue that the function gets as its last argument."""
    method = "forkserver"  # its server has imported torch already
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["benchmarks.sharded", "torch._dynamo"])
    results, port = context.SimpleQueue(), 29000 + time.monotonic_ns() % 3000
    multiprocessing.start_processes(
        function, (ranks, port, *args, results), ranks, start_method=method
    )
    return results.get()


def table(name: str, ranks: int, repeats: int) -> str:
    times, digests = launched(measure_times, ranks, name, repeats)
    lines = [
        f"\n## {name}, {ranks} rank{'s' * (ranks > 1)}\n",
        "| contender | min ms | to DDP | median | CPU ms | to DDP | peak MB | digest |",
        "|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for title, (wall, cpu) in times.items():
        of_ddp = times["DDP"]
        best = f"{min(wall):.2f} | {min(wall) / min(of_ddp.wall):.2f}"
        median = f"{statistics.median(wall) / statistics.median(of_ddp.wall):.2f}"
        used = f"{min(cpu):.2f} | {min(cpu) / min(of_ddp.cpu):.2f}"
        peak = launched(measure_memory, ranks, name, title)
        row = f"{title} | {best} | {median} | {used} | {peak:.1f} | `{digests[title]}`"
        lines.append(f"| {row} |")
    return "\n".join(lines)


def cost_of_parts(name: str, repeats: int) -> str:
    made = {"plain": ours(name, None)[0]} | {f"{k}": ours(name, k)[0] for k in (1, 2, 4)}
    best = {title: min(one.cpu) for title, one in timed(made, repeats).items()}
    cells = " | ".join(f"{best[str(k)] / best['plain']:.2f}" for k in (1, 2, 4))
    return f"| {name} | {best['plain']:.2f} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--ranks", default="1,2,4")
    given = parser.parse_args()
    for ranks in map(int, given.ranks.split(",")):
        for name in MODELS:
            print(table(name, ranks, given.repeats))
            sys.stdout.flush()
    torch.set_num_threads(1)
    print("\n## Parts in one process, smallest CPU time as a ratio to that of the plain program\n")
    print("| model | plain ms | 1 part | 2 parts | 4 parts |")
    print("|:--|--:|--:|--:|--:|")
    for name in MODELS:
        print(cost_of_parts(name, given.repeats))


if __name__ == "__main__":
    main()
