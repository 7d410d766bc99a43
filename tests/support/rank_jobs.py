"""Work of ranks that several tests start; light to import, because every rank does."""

from __future__ import annotations

from functrain.distributed import current


def raise_on_rank_1() -> None:
    world = current()
    with world.failing_together():
        if world.rank == 1:
            raise ValueError("no such sample")
        world.barrier()


def differ() -> None:
    world = current()
    world.require_equal({"recipe": "same", "data": "new" if world.rank == 2 else "old"})
