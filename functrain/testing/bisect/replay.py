"""Repeat a run from a checkpoint, and record hashes of each step or all of one step."""

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


@attrs.frozen
class Trace:
    """The hashes of one step.

    Attributes:
        before: of the state before the first step traced; for later steps of its scheduler alone,
            the only part that an evaluation changes.
        metrics: the row of the step.
        after: of the state after the step.
    """

    before: bytes
    batch: bytes
    metrics: bytes
    after: bytes


@attrs.define(eq=False)
class Tracer:
    """A listener that traces each step, up to a last one or until it differs from another run.

    Attributes:
        steps: traces by step.
        evaluations: metrics by step and evaluation.
        first: the step after which the trace starts.
    """

    last: int | None
    other: Tracer | None = None
    steps: dict[int, Trace] = attrs.field(factory=dict)
    evaluations: dict[int, dict[str, float]] = attrs.field(factory=dict)
    first: int | None = None
    ending: str = ""
    _before: bytes = b""
    _batch: bytes = b""

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Hash the inputs of the step."""
        whole = self.first is None
        if self.first is None:
            self.first = event.state.counters.step
        self._before = merkle(event.state if whole else event.state.scheduler).digest
        self._batch = merkle(event.batch).digest

    def on_batch_end(self, event: events.BatchEnd) -> events.Stop | None:
        """Hash the outputs of the step."""
        step = event.state.counters.step
        row = encode(fetch([dict(event.metrics)])[0])
        self.steps[step] = Trace(self._before, self._batch, row, merkle(event.state).digest)
        if step == self.last or (self.other is not None and self.parted(step)):
            return events.Stop()
        return None

    def on_eval_end(self, event: events.EvalEnd) -> None:
        """Store the metrics."""
        found = self.evaluations.setdefault(event.state.counters.step, {})
        prefix = evaluation_name(event)
        found |= {f"{prefix}/{name}": value for name, value in event.metrics.items()}

    def on_train_end(self, event: events.TrainEnd) -> None:
        """Store why the run ended."""
        self.ending = f"{event.reason}: {event.detail}"

    def parted(self, step: int) -> bool:
        """Return whether a step differs from that in the other run."""
        assert self.other is not None
        if step <= (self.other.first or 0):  # not repeated there
            return False
        ours, theirs = self.steps[step], self.other.steps.get(step)
        if theirs is None:
            return True
        if (self.first == step - 1) != (self.other.first == step - 1):
            ours = attrs.evolve(ours, before=theirs.before)  # these hash different things
        return ours != theirs


@attrs.define(eq=False)
class Capture:
    """A listener that stores everything about one step and ends the run there."""

    step: int
    program: AnyProgram
    before: Any = None
    batch: Any = None
    after: Any = None
    metrics: Mapping[str, Any] = attrs.field(factory=dict)

    def on_batch_begin(self, event: events.BatchBegin) -> None:
        """Keep a reference to the state and copy the batch."""
        if event.state.counters.step + 1 == self.step:
            self.before, self.batch = event.state, copy(event.batch)

    def on_batch_end(self, event: events.BatchEnd) -> events.Stop | None:
        """Store the results of the step."""
        if event.state.counters.step != self.step:
            return None
        self.after, self.metrics = event.state, dict(event.metrics)
        return events.Stop()


def trace(side: Side, start: int | None, last: int | None, other: Tracer | None = None) -> Tracer:
    """Return the hashes of the steps after ``start``, to the first that differs from ``other``."""
    tracer = Tracer(last, other)
    _replay(side.make(), side, start, tracer)
    return tracer


def capture(side: Side, start: int | None, step: int) -> Capture:
    """Return states and batch of one step, repeating the run from ``start`` on."""
    arguments = side.make()
    kept = Capture(step, arguments["program"])
    _replay(arguments, side, start, kept)
    return kept


def _replay(arguments: Mapping[str, Any], side: Side, start: int | None, listener: Any) -> None:
    """Repeat ``fit`` in a temporary directory, with one listener that only observes."""
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        for category in (ReplayWarning, NonFiniteWarning):
            warnings.simplefilter("ignore", category)
        options = {
            **arguments,
            "directory": _store(arguments, Path(place)),
            "resume": _origin(arguments, side, start),
            "listeners": [listener],
            "save_every": _NEVER,
            "restore_best": False,
        }
        fit(options.pop("program"), options.pop("data"), **{"progress": False, **options})


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
