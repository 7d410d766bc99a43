"""Check that an interrupted and resumed run equals an uninterrupted one, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from functrain.checkpoint import Checkpoints
from functrain.distributed.group import current
from functrain.errors import (
    CheckpointTypeError,
    ConfigurationError,
    NoCheckpointError,
    ResumptionError,
)
from functrain.testing.factories import Make, fit_arguments, importable
from functrain.testing.interruptions import Cut, as_cuts
from functrain.testing.run_parts import RunPart, in_a_fresh_process, in_this_process
from functrain.testing.snapshots import changes, snapshot
from functrain.training.resume import TYPES
from functrain.tree import children, is_node

_MOST = 8
_ADVICE = (
    "check_complete(make) names the values that a step depends on and no checkpoint holds; if it "
    "finds none, check the states of data and listeners"
)


def check_resumes(
    make: Make,
    *,
    steps: int,
    cuts: Sequence[int | Cut],
    fresh: bool = False,
    kill: bool = False,
    workers_after: int | None = None,
) -> None:
    """Check that an interrupted and resumed run ends with the bytes of an uninterrupted one.

    The run is executed twice, in temporary directories: without interruption, and in parts. The
    final state, the loop's decisions (best, early stopping, means), the state of the data, and
    ``metrics.jsonl``, the history, must be equal.

    Args:
        make: a function that returns the keyword arguments of ``fit`` (``program``, ``data``,
            ``eval_data``, ``save_every``, ...); ``until``, ``directory`` and ``resume`` are added.
            Without fresh processes, the arguments themselves or ``(program, data)`` suffice; all
            except the program are copied for each part, as if it started in a new process.
        steps: updates in the run.
        cuts: the steps after which it is interrupted: for plain numbers alternately by a clean stop
            and by an exception in a listener; a :class:`Cut` specifies how, and the number of
            workers afterwards.
        fresh: run each part in a new process with another hash seed. ``make`` must then be a
            function at the top level of a module, or ``"module:name"``.
        kill: interrupt plain numbers by SIGKILL, running parts in new processes. Steps after the
            last checkpoint are repeated, so give ``save_every``.
        workers_after: worker processes of ``functrain.data.Batches`` after the first cut.

    Raises:
        ResumptionError: the runs differ; names the first such step and the leaves.
        ConfigurationError: a cut is outside the run, ``make`` cannot be imported, or there are
            several processes: their group ends with the first interruption.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.Adam(lr=0.1))
        >>> check_resumes((program, ft.data.Batches(torch.randn(12, 2), 4)), steps=7, cuts=[2, 5])
    """
    ordered = as_cuts(cuts, kill, workers_after)
    outside = [cut.step for cut in ordered if cut.step >= steps]
    if outside or not ordered:
        raise ConfigurationError(f"cuts: expected steps from 1 to {steps - 1}, got {list(cuts)}")
    if (size := current().size) > 1:
        raise ConfigurationError(
            f"check_resumes: expected one process, got {size}, whose group ends with the first "
            "interruption. Call it in one: a sharded program has the same bytes on any number"
        )
    begin = in_this_process
    if fresh or any(cut.how == "kill" for cut in ordered):
        importable(make)
        begin = in_a_fresh_process
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        straight, *rest = _parts(one, two, steps, ordered)
        # New processes may run concurrently; within one process the runs would interfere.
        with ThreadPoolExecutor(1) as beside:
            running = beside.submit(begin, make, straight) if begin is in_a_fresh_process else None
            if running is None:
                begin(make, straight)
            for part in rest:
                begin(make, part)
            if running is not None:
                running.result()
        _compare(Path(one), Path(two), ordered, make)


def _parts(one: str, two: str, steps: int, cuts: list[Cut]) -> list[RunPart]:
    """Execute the uninterrupted run, and the parts of the interrupted one."""
    workers = [None, *(cut.workers for cut in cuts)]
    ends: list[Cut | None] = [*cuts, None]
    parts = [
        RunPart(two, steps, cut, count, number)
        for number, (cut, count) in enumerate(zip(ends, workers, strict=True), start=1)
    ]
    return [RunPart(one, steps, None, None, 0), *parts]


def _compare(straight: Path, resumed: Path, cuts: list[Cut], make: Make) -> None:
    """Raise if two run directories do not hold the same run.

    The saved state of a loader is not compared: it includes older states, for retrying a failed
    step, and these depend on the interruptions. Its batches show in the log and the state.
    """
    step, told = _first_difference(*(_rows(each) for each in (straight, resumed)))
    lines = [] if told is None else [told]
    runs = [_run_state(each, make) for each in (straight, resumed)]
    for name in _CALLED:
        one, two = (snapshot(getattr(run, name), _CALLED[name]) for run in runs)
        lines += [f"{c.place}: {c.detail}" for c in changes(one, two, "{} straight, {} resumed")]
    logs = [(each / "metrics.jsonl").read_bytes() for each in (straight, resumed)]
    if not lines and logs[0] != logs[1]:
        lines.append("metrics.jsonl: the same rows are written in other bytes")
    if lines:
        more = [f"... and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
        found = "".join(f"\n  {line}" for line in [*lines[:_MOST], *more])
        where = "; ".join(map(str, cuts))
        raise ResumptionError(
            f"the run with {where} is not the run that was never cut:{found}\n  {_ADVICE}",
            step,
        )


_CALLED = {"train": "state", "loop": "decisions"}


def _rows(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def _first_difference(
    straight: list[dict[str, Any]], resumed: list[dict[str, Any]]
) -> tuple[int | None, str | None]:
    for one, two in zip(straight, resumed, strict=False):
        found = changes(snapshot(one, "row"), snapshot(two, "row"), "{} straight, {} resumed")
        if found:
            step = one.get("step")
            name = found[0].place.removeprefix("row['").removesuffix("']")
            return step, f"the first step that differs is {step}: {name}: {found[0].detail}"
    if len(straight) != len(resumed):
        step = min(len(straight), len(resumed)) + 1
        return step, f"metrics.jsonl has {len(straight)} rows straight, {len(resumed)} resumed"
    return None, None


def _run_state(directory: Path, make: Make) -> Any:
    store = Checkpoints(directory)
    try:
        return store.restore("latest", types=TYPES)[0]
    except CheckpointTypeError:  # the tree of a step of one's own has classes of the user
        begun = fit_arguments(make)["program"].init()
        return store.restore("latest", types=(*TYPES, *_classes(begun)))[0]
    except NoCheckpointError as error:
        raise ResumptionError(f"a run left no checkpoint: {error}") from error


def _classes(node: Any) -> set[type]:
    """Return the classes of all nodes in a tree."""
    if not is_node(node):
        return set()
    return {type(node)}.union(*(_classes(child) for _, child in children(node)))
