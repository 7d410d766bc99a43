"""Load the checkpoint that a run resumes from; set later ones aside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from functrain import tree
from functrain.checkpoint import Anything, Checkpoints, read_manifest
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.checkpoint.storage.files import created, make_directories, sync_directory, write_all
from functrain.core.module_tensors import all_paths, plain_paths
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.rng import Rng
from functrain.core.state import Counters, TrainState
from functrain.distributed.group import World
from functrain.errors import (
    CheckpointMismatchError,
    LogError,
)
from functrain.metrics.log_file import FILE_NAME
from functrain.own_steps.states import CustomState, JointState
from functrain.training.choosing import is_path
from functrain.training.one_model import in_fit

# The classes a checkpoint of a run may name; loading makes no others.
TYPES = (RunState, LoopState, TrainState, CustomState, JointState, Counters, Rng)


def expected(program: AnyProgram, seed: int) -> RunState:
    """Return a run state with the structure that a checkpoint of ``program`` must have."""
    anything: Any = Anything()

    def one(program: Program, state: TrainState) -> TrainState:
        # A state that gains entries in use has no parts on ranks yet, so it is loaded whole.
        if program.sharded is not None and getattr(program.recipe.optimizer, "lazy_state", False):
            state = attrs.evolve(state, optimizer=anything)
        return attrs.evolve(state, scheduler=anything)

    state = whole(program).init(seed)
    if program.sharded is not None:
        from functrain.distributed.step import ShardedStep  # DTensor takes long to import

        assert isinstance(program.sharded, ShardedStep)
        state = program.sharded.placed.place(state)
    return RunState(program.map_states(one, state), anything, anything, anything)


def whole(program: AnyProgram) -> AnyProgram:
    """Return a program whose ``init`` places nothing on ranks.

    To place a state compares the weights of all ranks, which need not draw the same ones.
    """
    return program.map_leaves(lambda one: attrs.evolve(one, sharded=None))


def restore(
    store: Checkpoints, program: AnyProgram, which: int | str | Path, world: World
) -> tuple[RunState, dict[str, Any], Path]:
    """Load a run state, placed as the program's are, its info and path; ranks read own parts."""
    like = expected(program, seed=0)
    ranks = world if world.size > 1 else None
    try:
        saved, manifest = _fitted(store, which, like, program, ranks)
    except CheckpointMismatchError as error:
        if not hasattr(error, "path"):  # which another rank reported, in words
            raise
        other = Path(str(error.path))
        in_fit(program).check_record(read_manifest(other).info, other)
        better = CheckpointMismatchError(other, error.problems, _remedy(other, error.problems))
        for note in error.__notes__[1:]:
            better.add_note(note)
        raise better from None
    placed = program.sharded is not None
    if placed and isinstance(like.train.optimizer, Anything):  # was loaded whole
        saved = attrs.evolve(saved, train=program.place(saved.train))
    info: dict[str, Any] = manifest.info
    path = Path(str(which)) if is_path(which) else store.path(saved.train.counters.step)
    return saved, info, path


def _remedy(path: Path, problems: list[str]) -> str:
    """Return how to go on from a checkpoint of another architecture or optimizer."""
    if all(problem.startswith("train.optimizer") for problem in problems):
        return (
            "The optimizer is another one than the run's, or has other options. Continue with that "
            "of the run; or begin again from its weights in another directory: fit(state="
            f"program.init(params=functrain.checkpoint.weights({str(path)!r})))"
        )
    return (
        "Continue with the model of the run. If names have changed, go on in another directory: "
        f"state = functrain.load({str(path)!r}, like=program.init(), "
        "migrate=lambda run: run['train'], rename={'*.old': '*.new'}), then fit(state=state); "
        "a run of another model needs another directory"
    )


def _fitted(
    store: Checkpoints,
    which: int | str | Path,
    like: RunState,
    program: AnyProgram,
    world: World | None,
) -> tuple[Any, Any]:
    """Load a checkpoint, also of an earlier version whose paths contain the names of wrappers."""
    try:
        return store.restore(which, like=like, types=TYPES, world=world)
    except CheckpointMismatchError:
        leaf = program.leaves().get("")
        if leaf is None:  # those versions knew only programs of one module
            raise
        module = leaf.fixed.model.module
        full = {plain: path for path, plain in plain_paths(module, all_paths(module)).items()}
        before = _renamed(like, full)
        if tree.equal(before, like):
            raise
        saved, manifest = store.restore(which, like=before, types=TYPES, world=world)
        return _renamed(saved, {path: plain for plain, path in full.items()}), manifest


def _renamed(node: Any, names: dict[str, str]) -> Any:
    """Return a tree with other keys in its dicts."""
    if isinstance(node, dict):
        return {names.get(key, key): _renamed(child, names) for key, child in node.items()}
    if tree.is_node(node):
        return tree.rebuild(node, [_renamed(child, names) for _, child in tree.children(node)])
    return node


def set_aside(store: Checkpoints, step: int) -> Path | None:
    """Move checkpoints after a step to a run directory of their own, with a copy of the log."""
    later = [each for each in store.steps() if each > step and store.path(each).is_dir()]
    if not later:
        return None
    aside = _unused(store.directory / f"set-aside-from-{later[0]:08d}-to-{later[-1]:08d}")
    aside.mkdir()
    log = store.directory / FILE_NAME
    if log.exists():
        _copy(log, aside / FILE_NAME, log.stat().st_size)
    # The newest first: after a kill, the checkpoints left here have no gap.
    for each in reversed(later):
        os.rename(store.path(each), aside / store.path(each).name)
    sync_directory(aside)
    sync_directory(store.directory)
    return aside


def copy_log(checkpoint: Path, directory: Path, size: int) -> int:
    """Copy the log of a run up to a checkpoint to another run directory; return its new length."""
    source, target = checkpoint.parent / FILE_NAME, directory / FILE_NAME
    if not source.exists() or source.stat().st_size < size:
        return 0
    held, whole = target.read_bytes() if target.exists() else b"", source.read_bytes()
    if not whole.startswith(held):  # else it is a copy, of too many rows or cut short
        if held[:size] == whole[:size]:
            return size  # copied earlier, by a run that ended before its first checkpoint
        raise LogError(
            f"{target} is the log of another run; choose an empty directory to resume from "
            f"{checkpoint}"
        )
    target.unlink(missing_ok=True)
    make_directories(directory)
    _copy(source, target, size)
    sync_directory(directory)
    return size


def _copy(source: Path, target: Path, size: int) -> None:
    with source.open("rb") as stream, created(target) as descriptor:
        write_all(descriptor, stream.read(size))


def _unused(path: Path) -> Path:
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate
