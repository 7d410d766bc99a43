"""Time to read a global batch whole, whole and cut, by parts, and the parts of one rank of four.

python benchmarks/reading_by_parts.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from functrain.core import batch_splitting
from functrain.data import Batches, Mixture, Packed, Source, as_source
from functrain.data.batch_parts import Sharing
from functrain.data.parts import by_parts, step_parts

PARTS = 4
REPEATS = 15


def seconds(source: Source, step: Callable[[Any], object]) -> float:
    """Return the least seconds per batch over several epochs."""
    found = []
    for epoch in range(REPEATS):
        begun, count = time.perf_counter(), 0
        for batch in source.epoch(0, epoch, 0, None):
            step(batch)
            count += 1
        found.append((time.perf_counter() - begun) / count)
    source.close()
    return min(found)


def _step(sharing: Sharing, batch: Any) -> object:
    return step_parts([batch], sharing)


def main() -> None:
    """Print a table of microseconds per global batch."""
    images, labels = torch.rand(4096, 784), torch.arange(4096)
    tokens = torch.arange(1_000_000)
    columns = Batches((images, labels), 256)
    samples = Batches([*range(4096)], 256, transform=lambda index: images[index] + torch.rand(()))
    cases: dict[str, Any] = {
        "columns, 256 x 784": columns,
        "small columns, 32 x 4": Batches(images[:, :4].contiguous(), 32),
        "samples with a transform, 256 x 784": samples,
        "packed text, 64 x 256": Batches(Packed(tokens, 256), 64),
        "mixture of columns": Mixture([columns, columns]),
        "list of batches, 256 x 784": [images[:256]] * 16,
    }
    print(f"{'us per batch':36}    whole  and cut  parts=4 rank 0/4 rank 3/4")
    for name, data in cases.items():
        found = [
            seconds(as_source(data), lambda batch: None),
            seconds(as_source(data), lambda batch: batch_splitting.into(batch, PARTS)),
        ]
        for sharing in Sharing(PARTS), Sharing(PARTS, 0, 4), Sharing(PARTS, 3, 4):
            source = by_parts(as_source(data), sharing)
            found.append(
                seconds(source, lambda batch, sharing=sharing: step_parts([batch], sharing))
            )
        print(f"{name:36} " + " ".join(f"{1e6 * each:8.0f}" for each in found))


if __name__ == "__main__":
    main()
