"""The steps of functrain: the program, its transformations, and ``fit``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rich.console import Console

import functrain as ft
from benchmarks.steps.feed import Feed, Loader
from benchmarks.steps.work import LEARNING_RATE, Work
from functrain.listeners import ProgressBar


def pure(work: Work, feed: Feed) -> None:
    """Run the program as it is; every state remains usable."""
    _loop(_program(work), feed)


def donated(work: Work, feed: Feed) -> None:
    """Run donated steps, which update the state in place."""
    _loop(ft.donated(_program(work)), feed)


def compiled(work: Work, feed: Feed) -> None:
    """Run the whole step as one graph; every state remains usable."""
    _loop(ft.compiled(_program(work)), feed)


def compiled_donated(work: Work, feed: Feed) -> None:
    """Run the whole step as one graph that updates the state in place."""
    _loop(ft.donated(ft.compiled(_program(work))), feed)


def ahead_donated(work: Work, feed: Feed) -> None:
    """Run the same compiled ahead of time, into a library that a second process loads."""
    cache = os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.mkdtemp()
    _loop(ft.donated(ft.compiled(_program(work), directory=Path(cache) / "ahead")), feed)


def fit(work: Work, feed: Feed) -> None:
    """Run donated steps in ``fit`` with progress bar, history and log on disk."""
    program = ft.donated(_program(work))
    with tempfile.TemporaryDirectory() as directory, open(os.devnull, "w") as nowhere:
        progress = ProgressBar(Console(file=nowhere, force_terminal=True))
        ft.fit(
            program,
            Loader(feed),
            until=ft.Steps(len(Loader(feed))),
            directory=directory,
            listeners=[progress, _Watching(feed)],
        )


class _Watching:
    """A listener that passes the loss of each step to the feed, as the other loops do."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def on_batch_end(self, event: ft.events.BatchEnd) -> None:
        self._feed.losses.append(event.metrics["loss"])


def _program(work: Work) -> ft.Program:
    optimizer = ft.optim.AdamW(lr=LEARNING_RATE)
    return ft.program(work.model(), work.loss, optimizer, accumulate=work.accumulate)


def _loop(program: ft.Program, feed: Feed) -> None:
    """Keep only the newest state."""
    state = program.init()
    for batch in feed:
        state, metrics = program.train_step(state, batch)
        feed.losses.append(metrics["loss"])
