"""A part of a run, from where it stands in its directory to a cut or to its end."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.errors import ConfigurationError, ListenerError, ReplayWarning, ResumptionError
from functrain.testing.cutting import Cut, CutShortError, Cutting
from functrain.testing.fresh import fresh_process
from functrain.testing.making import Importable, Make, importable, made
from functrain.training.durations import Steps

_KILLED = -9


@attrs.frozen
class Part:
    """What one process, or one call of ``fit``, does.

    Attributes:
        directory: of the run.
        steps: at which the run ends.
        cut: before that, or ``None``.
        workers: of the data, or ``None`` for its own.
        number: which part of the run, from 0.
    """

    directory: str
    steps: int
    cut: Cut | None
    workers: int | None
    number: int


def in_this_process(make: Make, part: Part) -> None:
    """Make a part of a run here; the exception of a cut is its end."""
    from functrain.training.fitting import fit

    try:
        with warnings.catch_warnings():
            # That batches are drawn again is the price of such data, and no fault of the run.
            warnings.simplefilter("ignore", ReplayWarning)
            fit(**arguments(made(make), part))
    except ListenerError as error:
        if not isinstance(error.__cause__, CutShortError):
            raise


def in_a_fresh_process(make: Make, part: Part) -> None:
    """Make a part of a run in a process of its own, with a hash seed of its own.

    Raises:
        ResumptionError: it failed; the end of what it wrote is in the message.
    """
    told = {"make": attrs.asdict(importable(make)), "part": attrs.asdict(part)}
    done = fresh_process("functrain.testing.parts", "child", told, part.number + 1)
    killed = part.cut is not None and part.cut.how == "kill" and done.returncode == _KILLED
    if done.returncode and not killed:
        where = "" if part.cut is None else f", which was to end in {part.cut},"
        raise ResumptionError(
            f"part {part.number} of the run{where} failed in its process:\n{done.stderr[-2000:]}"
        )


def arguments(given: dict[str, Any], part: Part) -> dict[str, Any]:
    """What ``fit`` is called with for a part.

    Args:
        given: what was made; ``until``, ``directory`` and ``resume`` count for nothing.
        part: which part.
    """
    own = dict(given)
    store = own.get("directory")
    if isinstance(store, Checkpoints):
        own["directory"] = attrs.evolve(store, directory=Path(part.directory))
    else:
        own["directory"] = part.directory
    if part.cut is not None:
        # The last, so that all others have seen the step.
        own["listeners"] = [*own.get("listeners", ()), Cutting(part.cut)]
    if part.workers is not None:
        own["data"] = _with_workers(own["data"], part.workers)
    return {**own, "until": Steps(part.steps), "resume": True}


def _with_workers(data: Any, workers: int) -> Any:
    names = {field.name for field in attrs.fields(type(data))} if attrs.has(type(data)) else set()
    if "workers" not in names:
        raise ConfigurationError(
            f"the number of workers of {type(data).__name__} cannot be changed from here; it can "
            "for functrain.data.Batches"
        )
    return attrs.evolve(data, workers=workers)


def child(told: dict[str, Any]) -> None:
    """What the fresh process does with what it is told."""
    fields = told["part"]
    cut = fields.pop("cut")
    part = Part(**fields, cut=None if cut is None else Cut(**cut))
    in_this_process(Importable(**told["make"]).load(), part)
