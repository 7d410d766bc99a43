"""Orbax, an extra; imported only where it is installed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import orbax.checkpoint as ocp
import torch

from benchmarks.checkpoints.contenders import Begin, Finish, Tensors


@contextlib.contextmanager
def saving(place: Path, tensors: Tensors) -> Iterator[Begin]:
    """Save NumPy arrays, which ``StandardCheckpointer`` finishes in the background."""
    with ocp.StandardCheckpointer() as checkpointer:

        def begin() -> Finish:
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            checkpointer.save(place / "state", arrays)
            finish: Finish = checkpointer.wait_until_finished
            return finish

        yield begin


def load(place: Path, like: Tensors) -> Any:
    """Return tensors that share the memory of the arrays."""
    target = {name: tensor.numpy() for name, tensor in like.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(place / "state", target)
    return {name: torch.from_numpy(array) for name, array in found.items()}
