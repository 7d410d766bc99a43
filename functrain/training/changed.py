"""A call of ``fit`` with the directory of another: what differs from the run that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from functrain.checkpoint.run_state import RunState
from functrain.core import arguments
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.data.describing import differences
from functrain.errors import (
    BeyondLimitWarning,
    ConfigurationError,
    RecipeChangedWarning,
    RunChangedError,
)
from functrain.errors.warning import warn
from functrain.training.limits import Limits
from functrain.training.resumption import describe
from functrain.training.stepping import position


def refuse_another_seed(seed: int | None, train: TrainState, path: Path | None) -> None:
    """Refuse a seed that would have no effect.

    Args:
        seed: what ``fit`` was given, if anything.
        train: where the run begins or goes on.
        path: the checkpoint that it is of, ``None`` if ``fit`` was given it.

    Raises:
        RunChangedError: the run of the checkpoint has another seed.
        ConfigurationError: the state has.
    """
    if seed is None or arguments.seed(seed) == train.rng.seed:
        return
    own = f"whose seed is {train.rng.seed}: leave seed= out to go on with that"
    other = f"state=ft.fork(state, seed={seed})"
    if path is None:
        raise ConfigurationError(
            f"seed={seed} has no effect on the given state, {own}, or give {other}"
        )
    raise RunChangedError(
        f"seed={seed} has no effect on the run in {path.parent}, {own}. Choose another directory "
        f"for a run of that seed, or for one that goes on from a state of this run by {other}"
    )


def ended_before(
    saved: RunState,
    info: dict[str, Any],
    path: Path,
    limits: Limits,
    batches: int | None,
    steps: int | None,
) -> str | None:
    """How the run of a checkpoint has ended, where nothing is left to do.

    Args:
        saved: what the checkpoint holds.
        info: what was written beside it.
        path: its path.
        limits: of the run that goes on from it.
        batches: loader batches in an epoch, where known.
        steps: the updates that the limits allow, where known.

    Warns:
        BeyondLimitWarning: the run is longer than that.
    """
    if saved.loop.owed is not None:
        return None
    at = position(saved.train, batches, info.get("seconds", 0.0))
    limit = limits.reached(at)
    if limit is None:
        stopped = saved.loop.early_stop.get("stop")
        return f"early_stop: {stopped}" if stopped else None
    if steps is not None and at.step > steps:
        warn(
            f"the run in {path.parent} stands at step {at.step}, beyond the {steps} of this until: "
            "nothing is trained, and what it gives is the state of that step. Choose another "
            "directory for a shorter run, or go back by resume=STEP",
            BeyondLimitWarning,
        )
    return f"{limit.reason}: {limit.detail}"


def tell_changes(
    program: Program, data: dict[str, Any], info: dict[str, Any], path: Path, ended: str | None
) -> None:
    """Tell what differs from what the checkpoint was made with.

    Args:
        program: with which the run goes on.
        data: what is known of the data with which it does.
        info: what was written beside the checkpoint.
        path: of the checkpoint.
        ended: how the run has ended, where nothing is left to do.

    Raises:
        RunChangedError: the run has ended, so that its result would be that of another program or
            of other data.

    Warns:
        RecipeChangedWarning: training goes on with the present program and data.
    """
    now = describe(program)
    parts = ["recipe", "step"] if ended else ["recipe", "step", "environment"]
    # Another version of torch may print the same layers in other words.
    if info.get("environment", now["environment"]).get("torch") == now["environment"]["torch"]:
        parts.append("modules")
    changed = [
        *(each for part in parts for each in _changes(info.get(part, now[part]), now[part], part)),
        *((f"data.{name}", *both) for name, *both in differences(info.get("data"), data)),
    ]
    if not changed:
        return
    listed = "\n".join(
        f"  {name}: {before!r} in the checkpoint, {after!r} now" for name, before, after in changed
    )
    if ended:
        raise RunChangedError(
            f"nothing is left to train: the run in {path.parent} has ended ({ended}), and it was "
            f"another one than this:\n{listed}\nChoose another directory for a new run, or remove "
            "that one; go back to what it was made with for its result; or give a longer until to "
            "train on with what changed"
        )
    warn(
        "the run is continued with something changed; from here on it is not the run that was "
        f"started:\n{listed}",
        RecipeChangedWarning,
    )


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in {**before, **after}:
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}")
    elif before != after:
        yield path, before, after
