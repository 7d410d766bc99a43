"""Whole runs as values, which are small, print as code, and can be sent to other processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from hypothesis import strategies as st
from recipes import trainable
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain import tree
from functrain.errors import ReplayWarning
from functrain.testing.strategies import Case
from functrain.training.resume import TYPES

SAMPLES, BATCH = 11, 3
STEPS = 8  # two epochs, if no batches are accumulated


class Shuffled:
    """The smallest loader with a state of its own and its own order."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        self.load_state_dict({"passes": 0, "done": 0})

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(self.passes)
        order = torch.randperm(len(self), generator=generator).tolist()
        while self.done < len(self):
            self.done += 1
            yield self.batches[order[self.done - 1]]
        self.passes, self.done = self.passes + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.done = state["passes"], state["done"]


def _listed(columns: tuple[torch.Tensor, ...]) -> list[Any]:
    return list(zip(*(column.split(BATCH) for column in columns), strict=True))


def _mixture(columns: tuple[torch.Tensor, ...]) -> ft.data.Mixture:
    own = ft.data.Batches(columns, BATCH, seed=3)
    return ft.data.Mixture([own, _listed(columns)], weights=[0.7, 0.3], length=4)


DATA: dict[str, Any] = {
    "Batches": lambda columns: ft.data.Batches(columns, BATCH, seed=5),
    "list": _listed,
    "DataLoader": lambda columns: DataLoader(TensorDataset(*columns), BATCH, shuffle=True),
    "own state": lambda columns: Shuffled(_listed(columns)),
    "Mixture": _mixture,
}


class Counting:
    """A listener with a state: it adds to the log how many updates it has seen."""

    seen = 0

    def on_batch_end(self, event: ft.BatchEnd) -> dict[str, float]:
        self.seen += 1
        return {"seen": float(self.seen)}

    def state_dict(self) -> dict[str, int]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seen = state["seen"]


@attrs.frozen
class Described:
    """A run as a value; called, it makes the arguments of ``fit``, all of them new.

    Attributes:
        case: the model and the recipe.
        data: a key of ``DATA``.
        often: the interval of the evaluation set, in steps.
        seldom: the interval of the other one.
        save: between checkpoints, in steps.
        patience: of early stopping.
        counts: whether a listener with a state adds to the log.
    """

    case: Case
    data: str = "Batches"
    often: int = 2
    seldom: int = 5
    save: int = 3
    patience: int = 50
    counts: bool = True

    def __call__(self) -> dict[str, Any]:
        batch = self.case.batch
        other = ft.Evaluation([batch(101, 3)], every=f"{self.seldom} steps", batches=1)
        return {
            "program": self.case.program(),
            "data": DATA[self.data](batch(7, SAMPLES)),
            "eval_data": {"eval": [batch(100, 4), batch(102, 2)], "other": other},
            "eval_every": f"{self.often} steps",
            "save_every": f"{self.save} steps",
            "early_stop": ft.EarlyStop("eval/loss", patience=self.patience),
            "listeners": [Counting()] if self.counts else [],
        }


@st.composite
def described(draw: st.DrawFn, kinds: Sequence[str] = tuple(DATA)) -> Described:
    """A run of a few steps with any recipe, model and kind of data."""
    few = st.integers(1, 4)
    return Described(
        draw(trainable()),
        draw(st.sampled_from(list(kinds))),
        *(draw(few) for _ in range(3)),
        patience=draw(st.sampled_from([50, 2])),
    )


def fit(run: Described, directory: str | Path, *more: Any, steps: int = STEPS) -> ft.Run:
    """Start or resume a run in its directory, with additional listeners."""
    arguments = run()
    arguments["listeners"] += more
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReplayWarning)
        return ft.fit(until=f"{steps} steps", directory=directory, **arguments)


def differences(one: str | Path, two: str | Path) -> list[str]:
    """List the differences between two run directories, byte for byte."""
    logs = [Path(each, "metrics.jsonl").read_bytes() for each in (one, two)]
    states = [_run_state(each) for each in (one, two)]
    found = [str(each) for each in tree.diff(*states)]
    return found + ([] if logs[0] == logs[1] else ["metrics.jsonl"])


def _run_state(directory: str | Path) -> Any:
    state = ft.Checkpoints(directory).restore("latest", types=TYPES)[0]
    # A loader's older states are for rewinding, and depend on where the parts of the run began.
    return attrs.evolve(state, data=_last(state.data))


def _last(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    last = {key: value[-1:] for key, value in data.items() if key in ("snapshots", "turns")}
    return {key: _last(value) for key, value in data.items()} | last
