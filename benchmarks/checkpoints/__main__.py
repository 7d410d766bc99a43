"""Checkpoints against other ways to save the same bytes, in one process and on one disk.

    python -m benchmarks.checkpoints [--repeats 6] [--directory .] [--quick] [--size MB]

Two trees: 1 GB in 100 leaves, 100 MB in 5,000. Contenders take turns, beginning with another one
each time. A load fills untouched memory; a cold load begins with an empty page cache.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.checkpoints import reporting
from benchmarks.checkpoints.contenders import contenders
from benchmarks.checkpoints.measuring import Times, make, measure
from benchmarks.checkpoints.memory import fix_allocator
from benchmarks.checkpoints.stepping import inflation
from benchmarks.checkpoints.yardsticks import yardsticks

_TREES = {"1 GB in 100 leaves": (1 << 30, 100), "100 MB in 5,000 leaves": (100_000_000, 5000)}
_QUICK = {"16 MB in 10 leaves": (16_000_000, 10), "16 MB in 100 leaves": (16_000_000, 100)}


def main() -> None:
    options = _options()
    fix_allocator()
    # This benchmark measures a single process.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    torch.set_num_threads(1)
    if options.quick:
        gc.freeze()  # otherwise a short run spends most of its time in garbage collection
    trees, repeats = (_QUICK, 2) if options.quick else (_TREES, options.repeats)
    times: dict[str, Times] = {}
    steps: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.directory) as directory:
        print(f"{reporting.machine(Path(directory))}\n")
        for name, (size, leaves) in trees.items():
            tensors = make(int(options.size * 1e6) if options.size else size, leaves)
            running = [*yardsticks(tensors), *contenders()]
            times[name] = measure(
                running, tensors, Path(directory), repeats, drop_caches=not options.quick
            )
            steps[name] = inflation(tensors, Path(directory), repeats)
            print(f"## {name}\n\n{reporting.saves(running, times[name])}\n")
            print(f"{reporting.loads(times[name])}\n", flush=True)
    print(f"{reporting.steps(steps)}\n\n{reporting.aims(contenders(), times)}")


def _options() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=6)
    arguments.add_argument("--directory", type=Path, default=Path())
    arguments.add_argument("--size", type=float, help="MB of each tree, instead of its own")
    arguments.add_argument("--quick", action="store_true", help="small trees, 2 repeats")
    return arguments.parse_args()


if __name__ == "__main__":
    main()
