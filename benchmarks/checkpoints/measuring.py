"""Run the contenders in turns, so that other load on the machine affects all of them."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from benchmarks.checkpoints.contenders import Contender, Load, Saving, Tensors
from benchmarks.checkpoints.memory import chill, release, warm


@attrs.frozen
class Times:
    """Seconds, one entry for each repeat.

    Attributes:
        blocking: of contenders by name, until the call that saves has returned.
        saved: of contenders by name, until the save has ended: durable, if the contender is.
        hot: of loads by name, from the page cache into fresh memory.
        cold: of loads by name, from the disk into fresh memory.
    """

    blocking: dict[str, list[float]] = attrs.field(factory=dict)
    saved: dict[str, list[float]] = attrs.field(factory=dict)
    hot: dict[str, list[float]] = attrs.field(factory=dict)
    cold: dict[str, list[float]] = attrs.field(factory=dict)


def make(size: int, leaves: int) -> Tensors:
    """Make about ``size`` bytes of float32, in this many leaves of equal size."""
    return {f"blocks.{index}.weight": torch.randn(size // leaves // 4) for index in range(leaves)}


def measure(
    contenders: Sequence[Contender],
    tensors: Tensors,
    directory: Path,
    repeats: int,
    *,
    drop_caches: bool,
) -> Times:
    """Time all contenders, after comparing their loaded trees, which also warms them up.

    Cold loads are last: an empty page cache would slow down the next save.
    """
    times = Times()
    saving = [contender for contender in contenders if contender.saving and contender.loads]
    _round(contenders, tensors, directory / "contender", _compare)
    for repeat in range(repeats):
        print(f"saves and hot loads {repeat + 1} of {repeats}", file=sys.stderr)
        turn = _rotated(contenders, repeat)
        _round(turn, tensors, directory / "contender", partial(_hot, times), times)
    half = (repeats + 1) // 2  # they need new saves, which are not timed
    for repeat in range(half):
        print(f"cold loads {repeat + 1} of {half}", file=sys.stderr)
        turn = _rotated(saving, repeat)
        _round(turn, tensors, directory / "contender", partial(_cold, times, drop_caches))
    return times


def _rotated(contenders: Sequence[Contender], by: int) -> Sequence[Contender]:
    first = by % len(contenders)
    return (*contenders[first:], *contenders[:first])


def _round(
    contenders: Sequence[Contender],
    tensors: Tensors,
    place: Path,
    then: Callable[[Contender, Tensors, Path], None],
    times: Times | None = None,
) -> None:
    """Save with each contender, use the saved files, and remove them."""
    for contender in contenders:
        place.mkdir()
        if contender.saving is not None:
            _save(contender.name, contender.saving, tensors, place, times or Times())
        then(contender, tensors, place)
        shutil.rmtree(place)
        os.sync()


def _save(name: str, saving: Saving, tensors: Tensors, place: Path, times: Times) -> None:
    with saving(place, tensors) as begin:
        release()
        start = time.perf_counter()
        finish = begin()
        blocked = time.perf_counter() - start
        finish()
        saved = time.perf_counter() - start
    times.blocking.setdefault(name, []).append(blocked)
    times.saved.setdefault(name, []).append(saved)


def _hot(times: Times, contender: Contender, tensors: Tensors, place: Path) -> None:
    for name, load in contender.loads.items():
        warm(place)
        times.hot.setdefault(name, []).append(_seconds(load, place, tensors))


def _cold(
    times: Times, drop_caches: bool, contender: Contender, tensors: Tensors, place: Path
) -> None:
    for name, load in contender.loads.items():
        chill(place, drop_caches)
        times.cold.setdefault(name, []).append(_seconds(load, place, tensors))


def _seconds(load: Load, place: Path, tensors: Tensors) -> float:
    release()
    start = time.perf_counter()
    loaded = load(place, tensors)
    seconds = time.perf_counter() - start
    del loaded  # freed outside of any timed load
    return seconds


def _compare(contender: Contender, tensors: Tensors, place: Path) -> None:
    for name, load in contender.loads.items():
        loaded: Any = load(place, tensors)
        if isinstance(loaded, dict):
            same = loaded.keys() == tensors.keys() and all(
                torch.equal(loaded[key], tensor) for key, tensor in tensors.items()
            )
            if not same:
                raise SystemExit(f"{name} loads other values than were saved")
