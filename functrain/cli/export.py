"""``functrain export`` and ``functrain member``: write a part of a checkpoint by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from functrain.checkpoint import load, save
from functrain.checkpoint.exporting import export
from functrain.cli import output
from functrain.cli.checkpoint_argument import ChosenCheckpoint
from functrain.errors import ConfigurationError
from functrain.populations import states
from functrain.training.resume import TYPES
from functrain.tree.printing import byte_size


def write(
    target: ChosenCheckpoint,
    out: Path,
    console: Console,
    json: bool,
    what: Any,
    format: Any,
    overwrite: bool,
    program: str | None,
) -> None:
    """Export weights, and print the file."""
    path = export(target.path, out, what, format, overwrite, program)
    length = path.stat().st_size
    if json:
        output.print_json(
            {"path": path, "bytes": length, "step": target.manifest.step, "what": what}
        )
        return
    step = "" if target.manifest.step is None else f" of step {target.manifest.step}"
    output.print_lines(console, f"{what}{step} written to {path}: {byte_size(length)}")


def write_member(target: ChosenCheckpoint, member: int | None, out: Path, console: Console) -> None:
    """Write the state of a member, for ``pop.programs[member]``, and print where it is.

    ``None`` stands for the best member, which a run records.
    """
    found: Any = load(target.path, types=TYPES)
    state: Any = getattr(found, "train", found)
    if not states.is_population(state):
        raise ConfigurationError(f"{target.path} is no checkpoint of a population")
    members = len(states.seeds_of(state))
    chosen = ""
    if member is None and hasattr(found, "loop") and "member" in found.loop.best:
        member = found.loop.best["member"]
        chosen = f", the best by the run's monitor ({found.loop.best['value'][member]:.6g}),"
    if member is None or not 0 <= member < members:
        raise ConfigurationError(
            f"{target.path}: expected the index of a member, 0 to {members - 1}, got {member}"
        )
    one = states.member(state, member)
    held = {path: each[member] for path, each in states.held_by(state).items()}
    info = target.manifest.info
    if isinstance(info, dict):
        info = {**info, "population": None, "recipe": None, "member": member}
        if held and any(one["share"] is not None for one in info.get("averages") or ()):
            info["averages"] = None  # a member's own hyperparameters may decide the share
    save(out, one, info=info, step=one.counters.step)
    own = ", ".join(f"{path}={value}" for path, value in held.items())
    which = f"member {member} of {members}{own and f' ({own})'}{chosen}"
    output.print_lines(console, f"{which} written to {out}")
