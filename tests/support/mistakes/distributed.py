"""Mistakes of several processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import placed_states
import pytest
import rank_jobs
import ranks
import torch

import functrain as ft
from functrain import errors
from functrain.distributed import World, current
from functrain.training.dispatch import Listeners
from mistakes.parts import SLOW


def join_alone(path: Path, patches: pytest.MonkeyPatch) -> object:
    given = {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in given.items():
        patches.setenv(name, str(value))
    return current(timeout=0.5)


def save_apart(path: Path, patches: pytest.MonkeyPatch) -> object:
    (error, *_) = ranks.outcomes(placed_states.save_apart, 2, path)
    raise error


def fail(function: Callable[[], None]) -> object:
    def make(path: Path, patches: pytest.MonkeyPatch) -> object:
        (error, *_) = ranks.outcomes(function, 3)
        raise error

    return make


def wait_in_a_listener(path: Path, patches: pytest.MonkeyPatch) -> object:
    class Waiting:
        def on_batch_end(self, event: ft.events.BatchEnd) -> None:
            World(0, 2).barrier()

    state = ft.program(torch.nn.Linear(2, 1), lambda m, b: m(b).mean(), ft.optim.SGD(0.1)).init()
    with pytest.raises(errors.ListenerError) as raised:
        Listeners.of([Waiting()], rank=0, ranks=2).emit(ft.events.BatchEnd(state, {}))
    assert raised.value.__cause__ is not None
    raise raised.value.__cause__


MISTAKES = [
    (
        errors.RankMismatchError,
        wait_in_a_listener,
        "needs every rank, but listeners are called on rank 0 only",
    ),
    (
        errors.ProcessGroupError,
        join_alone,
        "rank 1 of 2 could not join the others at 127.0.0.1:1",
        SLOW,
    ),
    (
        errors.RankFailedError,
        fail(rank_jobs.raise_on_rank_1),
        "rank 1 raised ValueError: no such sample",
        SLOW,
    ),
    (
        errors.RankMismatchError,
        fail(rank_jobs.differ),
        "data: rank 2 has 'new', ranks 0, 1 'old'",
        SLOW,
    ),
    (
        errors.RunDirectoryError,
        save_apart,
        "does not see what rank 0 creates in /proc/self/cwd",
        SLOW,
    ),
]
