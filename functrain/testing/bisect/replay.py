"""Repeat a run from a checkpoint, hashing each step and keeping all of the last one."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.checkpoint import Checkpoints
from functrain.core.protocol import AnyProgram
from functrain.errors import NonFiniteWarning, ReplayWarning
from functrain.metrics import fetch
from functrain.metrics.log_file import encode
from functrain.testing.bisect.run import Side
from functrain.training import events
from functrain.training.choosing import parent_of
from functrain.training.decisions import monitor_and_mode
from functrain.training.durations import Steps
from functrain.training.early_stopping.rule import as_rule
from functrain.training.fitting import fit
from functrain.training.progress.output import evaluation_name
from functrain.tree.hashing import merkle
from functrain.tree.nodes import copy

_NEVER = Steps(10**15)


@attrs.define(eq=False)
class Recorder:
    """A listener that hashes each step, and keeps all of the last one.

    Attributes:
        last: the step to stop after.
        other: another run; this one stops after the first step that differs from it.
        hashes: of state, batch, metrics and new state, by step.
        evaluations: metrics by step and evaluation.
        ending: why the run ended.
        step: the last step that was begun, with its state, batch, new state and metrics.
    """

    program: AnyProgram
    last: int | None
    other: Recorder | None = None
    hashes: dict[int, tuple[bytes, ...]] = attrs.field(factory=dict)
    evaluations: dict[int, dict[str, float]] = attrs.field(factory=dict)
    ending: str = ""
    step: int = 0
    before: Any = None
    batch: Any = None
    after: Any = None
    metrics: Mapping[str, Any] = attrs.field(factory=dict)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Keep the inputs of the step."""
        self.step = event.state.counters.step + 1
        self.before, self.batch = event.state, copy(event.batch)
        self.after, self.metrics = None, {}

    def on_batch_end(self, event: events.BatchEnd) -> events.Stop | None:
        """Keep the outputs of the step, and hash it."""
        self.after, self.metrics = event.state, dict(event.metrics)
        row = encode(fetch([dict(event.metrics)])[0])
        trees = (merkle(tree).digest for tree in (self.before, self.batch, event.state))
        self.hashes[self.step] = (row, *trees)
        return events.Stop() if self.step == self.last or self.parted else None

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Keep the metrics."""
        found = self.evaluations.setdefault(event.state.counters.step, {})
        prefix = evaluation_name(event)
        found |= {f"{prefix}/{name}": value for name, value in event.metrics.items()}

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Keep why the run ended."""
        self.ending = f"{event.reason}: {event.detail}"

    @property
    def parted(self) -> bool:
        """Whether the last step differs from that of the other run, which may begin later."""
        if self.other is None or self.step < min(self.other.hashes, default=0):
            return False
        return self.hashes.get(self.step) != self.other.hashes.get(self.step)


def replay(
    side: Side, start: int | None, last: int | None, other: Recorder | None = None
) -> Recorder:
    """Repeat ``fit`` in a temporary directory, with one listener that only observes."""
    arguments = side.make()
    recorder = Recorder(arguments["program"], last, other)
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        for category in (ReplayWarning, NonFiniteWarning):
            warnings.simplefilter("ignore", category)
        options = {
            **arguments,
            "directory": _store(arguments, Path(place)),
            "resume": _origin(arguments, side, start),
            "listeners": [recorder],
            "save_every": _NEVER,
            "restore_best": False,
        }
        fit(options.pop("program"), options.pop("data"), **{"progress": False, **options})
    return recorder


def _store(arguments: Mapping[str, Any], place: Path) -> Checkpoints:
    """Return a temporary store that monitors the same metric as the run's."""
    given = arguments.get("directory")
    by = given if isinstance(given, Checkpoints) else as_rule(arguments.get("early_stop"))
    return Checkpoints(place, keep_last=1, keep_best=0, **monitor_and_mode(by))


def _origin(arguments: Mapping[str, Any], side: Side, start: int | None) -> Any:
    """Return the checkpoint to resume from, or ``True`` if the run started from scratch."""
    store = None if side.recorded is None else Checkpoints(side.recorded)
    if store is not None and start is not None:
        return store.path(start)
    asked = arguments.get("resume", True)
    place = asked if isinstance(asked, str | Path) and asked not in ("latest", "best") else True
    return (None if store is None else parent_of(store)) or place
