"""Time training steps while a checkpoint is saved in the background."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import functrain as ft
from benchmarks.checkpoints.contenders import Tensors
from benchmarks.checkpoints.memory import release
from benchmarks.steps.work import WORKS
from functrain.checkpoint import Saver

_ALONE = 20


def inflation(tensors: Tensors, directory: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Time steps of a small GPT in turns, alone and while ``tensors`` are saved.

    Returns:
        (seconds of each step alone, seconds of each step that began while a save was under way).
    """
    work = WORKS["gpt"]
    tokens, following = work.batch()
    batch = tokens[:2], following[:2]  # short steps, so that several run during a save
    program = ft.program(work.model(), work.loss, ft.optim.AdamW(lr=1e-3))
    state = program.init()

    def advance() -> None:
        nonlocal state
        state, _ = program.train_step(state, batch)

    alone: list[float] = []
    during: list[float] = []
    for repeat in range(-1, repeats):
        place = directory / "steps"
        release()
        quiet = [_step(advance) for _ in range(_ALONE)]
        busy = _while_saving(advance, tensors, place)
        shutil.rmtree(place)
        os.sync()
        if repeat >= 0:
            alone += quiet
            during += busy
    return alone, during


def _while_saving(advance: Callable[[], None], tensors: Tensors, place: Path) -> list[float]:
    steps: list[float] = []
    with Saver(ft.Checkpoints(place)) as saver:
        saver.save({"params": tensors}, step=1)
        while saver.poll() is None:
            steps.append(_step(advance))
    return steps[:-1] or steps  # the save ended during the last one


def _step(advance: Callable[[], None]) -> float:
    start = time.perf_counter()
    advance()
    return time.perf_counter() - start
