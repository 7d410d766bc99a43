"""The order of events is a regular language, and so are those of a run in several parts.

A run is written as a string, a letter an event, and matched by one expression.
"""

from __future__ import annotations

import re
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from trying import tried

import functrain as ft
from functrain import tree

LETTERS = {
    "on_train_begin": "B",
    "on_epoch_begin": "e",
    "on_batch_begin": "b",
    "on_batch_end": "s",
    "on_epoch_end": "E",
    "on_eval_begin": "v",
    "on_eval_end": "V",
    "on_early_stopped": "X",
    "on_checkpoint_saved": "C",
    "on_train_end": "T",
}
STEP = "bsE?(vV)*X?C?"
EPOCH = f"(e({STEP})*)"
# A run cut within an epoch saves and ends the epoch; a run without steps does neither.
RUN = re.compile(f"B{EPOCH}*C?E?T")


class Writing:
    """Write a letter per event; stop the run at one of them."""

    def __init__(self, stop: int | None = None) -> None:
        self.text, self.stop = "", stop
        for method, letter in LETTERS.items():
            setattr(self, method, lambda event, letter=letter: self.write(letter, event))

    def write(self, letter: str, event: Any) -> ft.Stop | None:
        self.text += letter if letter != "E" or event.complete else "I"
        return ft.Stop() if len(self.text) == self.stop else None


@attrs.frozen
class Loop:
    """Limits and intervals of a run of a trivial model."""

    batches: int
    accumulate: int
    until: Any
    evaluate: Any
    save: Any
    patience: int
    ema: float | None

    def fit(self, directory: Any, *listeners: Any) -> ft.Run:
        torch.manual_seed(0)
        program = ft.program(
            nn.Linear(2, 1),
            lambda model, batch: model(batch).square().mean(),
            ft.optim.SGD(lr=0.9),
            accumulate=self.accumulate,
            ema=self.ema,
        )
        return ft.fit(
            program,
            [torch.ones(2, 2) * k for k in range(self.batches)],
            until=self.until,
            eval_data={"eval": [torch.ones(1, 2)], "more": [torch.ones(2, 2)]},
            eval_every=self.evaluate,
            save_every=self.save,
            directory=directory,
            early_stop=ft.EarlyStop(patience=self.patience),
            listeners=listeners,
        )


durations = st.builds("{} steps".format, st.integers(1, 9)) | st.builds(
    "{} epochs".format, st.sampled_from(["0.5", "1", "2"])
)
loops = st.builds(
    Loop,
    batches=st.integers(1, 5),
    accumulate=st.integers(1, 3),
    until=durations | st.lists(durations, min_size=2, max_size=2),
    evaluate=durations,
    save=durations,
    patience=st.integers(1, 9),
    ema=st.sampled_from([None, 0.9]),
)


@pytest.mark.row(27)
@tried(100)
@given(loop=loops, kept=st.booleans(), stop=st.none() | st.integers(1, 60))
def test_events_come_in_one_order(loop: Loop, kept: bool, stop: int | None) -> None:
    writing = Writing(stop)
    with TemporaryDirectory() as directory:
        run = loop.fit(directory if kept else None, writing)
    text = writing.text
    assert RUN.fullmatch(text.replace("I", "E")), text
    assert text.count("s") == run.state.counters.step
    assert text.count("E") == run.state.counters.epoch
    assert text.count("I") == (run.state.counters.batch > 0)
    # The limit has precedence if both end the run.
    assert ("X" in text) == (run.reason == "early_stop") or run.reason.startswith("max_")
    assert kept or "C" not in text
    if run.reason.startswith("max_"):
        assert re.search(r"s(E?)(vV)+X?C?I?T$", text), "the last step is evaluated once"
    assert ("vVvVvVvVvV" if loop.ema else "vVvVvV") not in text, "no step is evaluated twice"


@tried(60)
@given(loop=loops, stops=st.lists(st.integers(1, 40), min_size=1, max_size=3))
def test_the_events_of_parts_join_to_the_whole(loop: Loop, stops: list[int]) -> None:
    whole, parts = Writing(), [*map(Writing, stops), Writing()]
    with TemporaryDirectory() as one, TemporaryDirectory() as two:
        straight = loop.fit(one, whole)
        for part in parts:
            resumed = loop.fit(two, part)
    assert tree.diff(straight.state, resumed.state) == []
    assert straight.best == resumed.best
    # Each part has its own first and last events, and its own final save.
    told = "".join(re.sub("[BeCIT]", "", part.text) for part in parts)
    assert told == re.sub("[BeCIT]", "", whole.text)
