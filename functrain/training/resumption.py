"""Going on from a checkpoint: what is expected of it, and what differs from when it was made."""

from __future__ import annotations

import errno
import platform
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch
from torch import nn

from functrain import tree
from functrain.checkpoint import Anything, Checkpoints, read_manifest
from functrain.checkpoint.format.changed_buffers import described
from functrain.checkpoint.format.manifest import MANIFEST
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.program import Program
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.core.wrapped import all_paths, plain_paths, shown_layers
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    ConfigurationError,
    NoCheckpointError,
    RunChangedError,
    UnsupportedLeafError,
    UnusedStateWarning,
)
from functrain.errors.warning import warn

# What ``fit`` takes: whether, or the place or path of a checkpoint.
Resume: TypeAlias = bool | int | str | Path
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
    persistent = plain_paths(model.module, list(model.module.state_dict())).values()
    return {
        "recipe": program.recipe.describe(),
        # Not whether it donates, which changes no bit.
        "step": getattr(program.device_step, "description", "eager"),
        "params": {path: list(value.shape) for path, value in model.params.items()},
        "modules": shown_layers(model.module),
        # Forwards may change them; so it is known whether a program begins with the same ones.
        "buffers": {path: described(value) for path, value in model.buffers.items()},
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
    store: Checkpoints, program: Program, which: int | str | Path = "latest"
) -> tuple[RunState, dict[str, Any], Path]:
    """A run state, and what was written beside it.

    Args:
        store: a run directory that holds checkpoints.
        program: what the checkpoint must fit.
        which: ``"latest"`` or ``"best"`` that verifies, a step, or the path of any checkpoint.

    Returns:
        (run state, info, path).

    Raises:
        CheckpointMismatchError: it is of another architecture; all paths are listed.
    """
    saved, manifest = _fitted(store, which, expected(program, seed=0), program.fixed.model.module)
    info: dict[str, Any] = manifest.info
    path = Path(str(which)) if is_path(which) else store.path(saved.train.counters.step)
    return saved, info, path


def _fitted(
    store: Checkpoints, which: int | str | Path, like: RunState, module: nn.Module
) -> tuple[Any, Any]:
    """A checkpoint, also one of an earlier version, whose paths have the names of wrappers."""
    try:
        return store.restore(which, like=like, types=TYPES)
    except CheckpointMismatchError:
        full = {plain: path for path, plain in plain_paths(module, all_paths(module)).items()}
        before = _renamed(like, full)
        if tree.equal(before, like):
            raise
        saved, manifest = store.restore(which, like=before, types=TYPES)
        return _renamed(saved, {path: plain for plain, path in full.items()}), manifest


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """A tree with other keys in its dicts."""
    if isinstance(node, dict):
        return {names.get(key, key): _renamed(child, names) for key, child in node.items()}
    if tree.is_node(node):
        return tree.rebuild(node, [_renamed(child, names) for _, child in tree.children(node)])
    return node


def chosen(
    store: Checkpoints | None, resume: Resume
) -> tuple[Checkpoints, int | str | Path] | None:
    """Which checkpoint of which run directory to go on from; ``None`` to begin anew.

    Raises:
        ConfigurationError: the directory holds another run than the one asked for.
        NoCheckpointError: the checkpoint asked for is not there.
    """
    holds = store is not None and bool(store.steps())
    if is_path(resume):
        path = Path(str(resume)).absolute()
        run = _run_at(path)
        if run is not None and store is not None and path.resolve() == store.directory.resolve():
            return store, "latest"
        if store is not None and path.resolve().parent == store.directory.resolve():
            return store, path
        if store is not None and holds:
            parent = parent_of(store)
            if parent is not None and str(path) in (parent, str(Path(parent).parent)):
                return store, "latest"  # the same call again
            raise ConfigurationError(
                f"{store.directory} holds a run already. To go on from {path}, choose an empty "
                "directory, or take one of its own checkpoints."
            )
        return (Checkpoints(path.parent), path) if run is None else (run, "latest")
    if holds and store is not None:
        if resume is False:
            raise ConfigurationError(
                f"{store.directory} holds a run already. Choose another directory, or continue it "
                "with resume=True."
            )
        return store, "latest" if resume is True else resume
    if resume is not True and resume is not False and resume != "latest":
        where = "without a directory" if store is None else f"in {store.directory}"
        raise NoCheckpointError(errno.ENOENT, f"resume={resume!r}: there is no checkpoint {where}")
    return None


def _run_at(path: Path) -> Checkpoints | None:
    """The run directory at a path; ``None`` for a checkpoint, and for anything else."""
    if (path / MANIFEST).exists() or not path.is_dir():
        return None
    store = Checkpoints(path)
    return store if store.steps() else None


def notice_unused(state: TrainState | None, saved: TrainState) -> None:
    """Tell that a state is not what the run goes on from.

    Args:
        state: what ``fit`` was given; one of the run's seed that has made no step is where the run
            once began.
        saved: what it goes on from.

    Raises:
        RunChangedError: a state that has made no step is of another seed.

    Warns:
        UnusedStateWarning: a state with steps behind it is another one.
    """
    if state is None:
        return
    if state.counters.step == 0:
        if state.rng.seed != saved.rng.seed:
            raise RunChangedError(
                f"the state that was given as state= has the seed {state.rng.seed}, and the run "
                f"goes on from its own checkpoint of step {saved.counters.step}, whose seed is "
                f"{saved.rng.seed}. Choose another directory to begin with the state, or leave "
                "state= out"
            )
        return
    if not tree.equal(state, saved):
        warn(
            f"the state of step {state.counters.step} that was given as state= is not used: the "
            f"run goes on from its own checkpoint of step {saved.counters.step}. Choose another "
            "directory to go on from the state, or leave state= out",
            UnusedStateWarning,
        )


def parent_of(store: Checkpoints) -> str | None:
    """The checkpoint of another run that the newest one here goes back to, if it does."""
    for step in reversed(store.steps()):
        try:
            info = read_manifest(store.path(step)).info
        except (CheckpointCorruptError, NoCheckpointError):
            continue
        return info.get("parent") if isinstance(info, dict) else None
    return None


def refuse_unknown(value: Any, path: tree.Path) -> None:
    """Refuse what a resumed run could not make again in the state of a listener or a loader.

    Raises:
        UnsupportedLeafError: an instance of a class, or a member of an enum; names the path.
    """
    if isinstance(value, Enum) or (
        tree.is_node(value) and not isinstance(value, dict | list | tuple)
    ):
        raise UnsupportedLeafError(
            f"{tree.path_string(path)} is a {type(value).__qualname__}; a resumed run makes no "
            "classes but its own, so the state of a listener or a loader is made of dicts, lists, "
            "tuples, tensors and plain values. Convert it in state_dict"
        )
    for key, child in tree.children(value) if tree.is_node(value) else ():
        refuse_unknown(child, (*path, key))


def is_path(which: object) -> bool:
    """Whether a checkpoint is named by its path, rather than by its place among others."""
    return isinstance(which, str | Path) and which not in ("latest", "best")
