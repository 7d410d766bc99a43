"""Going on from a checkpoint: what is expected of it, and what differs from when it was made."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch

from functrain.checkpoint import Anything, Checkpoints
from functrain.errors import RecipeChangedWarning
from functrain.program import Program
from functrain.rng import Rng
from functrain.run_state import LoopState, RunState
from functrain.state import Counters, TrainState

# The classes a checkpoint of a run may name; loading makes no others.
TYPES = (RunState, LoopState, TrainState, Counters, Rng)


def environment() -> dict[str, Any]:
    """What a bitwise equal continuation depends on besides the state."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def describe(program: Program) -> dict[str, Any]:
    """What a checkpoint says it was made with: recipe, shapes, transformations, environment."""
    model = program.fixed.model
    persistent = model.module.state_dict().keys()
    return {
        "recipe": program.recipe.describe(),
        "params": {path: list(value.shape) for path, value in model.params.items()},
        # What a state_dict of the module has under more names, or not at all.
        "ties": dict(model.aliases),
        "transient": [path for path in model.buffers if path not in persistent],
        "environment": environment(),
    }


def expected(program: Program, seed: int) -> RunState:
    """A run state of the structure a checkpoint of ``program`` must have."""
    state = program.init(seed)
    anything: Any = Anything()
    if getattr(program.recipe.optimizer, "lazy_state", False):
        state = attrs.evolve(state, optimizer=anything)
    return RunState(attrs.evolve(state, scheduler=anything), anything, anything, anything)


def restore(
    store: Checkpoints, program: Program, seed: int
) -> tuple[RunState, dict[str, Any], Path]:
    """The newest run state that verifies, and what was written beside it.

    Args:
        store: a run directory that holds checkpoints.
        program: what the checkpoint must fit.
        seed: only its structure counts.

    Returns:
        (run state, info, path). A recipe or environment that differs is told in a
        :class:`RecipeChangedWarning`; training goes on with the present program.

    Raises:
        CheckpointMismatchError: it is of another architecture; all paths are listed.
    """
    saved, manifest = store.restore(like=expected(program, seed), types=TYPES)
    info: dict[str, Any] = manifest.info
    path = store.path(saved.train.counters.step)
    now = describe(program)
    changed = [
        f"{path}: {before!r} in the checkpoint, {after!r} now"
        for part in ("recipe", "environment")
        for path, before, after in _changes(info.get(part), now[part], part)
    ]
    if changed:
        listed = "\n".join(f"  {line}" for line in changed)
        warnings.warn(
            "the run is continued with something changed; from here on it is not the run that was "
            f"started:\n{listed}",
            RecipeChangedWarning,
            stacklevel=3,
        )
    return saved, info, path


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}")
    elif before != after:
        yield path, before, after
