"""The checkpoints of one ``fit`` call: the record of the run in them, and which state is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from functrain import tree
from functrain.checkpoint import Checkpoints, Saver
from functrain.checkpoint.run_state import RunState
from functrain.core.state import TrainState
from functrain.data import Source
from functrain.distributed.group import World
from functrain.errors import UnsupportedError
from functrain.training.early_stopping.rule import find
from functrain.training.events import CheckpointSaved
from functrain.training.plan import Plan
from functrain.training.run_record import (
    Record,
    record_inputs,
    record_run,
    without_changing,
    without_unknown,
)


@attrs.define(eq=False)
class Checkpointer:
    """Saves the states of a run to a store, and knows which of them are saved.

    Attributes:
        saver: writes to it, in the background or not.
        described: what each checkpoint records about the run.
        frozen: paths in a run state of parameters that are not trained.
        newest: the step of the newest checkpoint, and whether nothing was left to do after it.
        in_flight: the state that is being saved, until its outcome is reported.
        contents_checked: whether the contents of the data were described a second time.
    """

    store: Checkpoints
    saver: Saver
    plan: Plan
    source: Source
    described: Record
    frozen: frozenset[str]
    newest: tuple[int, bool] = (-1, True)
    in_flight: TrainState | None = None
    contents_checked: bool = False

    @classmethod
    def of(cls, store: Checkpoints, plan: Plan, source: Source, world: World) -> Checkpointer:
        """Make one for the states of a program, which must not be overwritten while in flight."""
        ranks = world if world.size > 1 else None
        saver = Saver(store, inline=not store.background, world=ranks)
        frozen = frozenset(
            f"train.{prefix}params.{path}"
            for prefix, leaf in plan.program.leaves().items()
            for path in leaf.fixed.model.params.keys() - set(leaf.fixed.trainable)
        )
        return cls(store, saver, plan, source, record_run(plan, source), frozen)

    def resume(self, step: int, is_done: bool, info: dict[str, Any]) -> None:
        """Note that a state was loaded from a checkpoint of this store; see ``newest``."""
        self.newest = (step, is_done)
        kept: Record = {name: info[name] for name in ("parent", "initial") if name in info}
        self.described = {**without_unknown(self.described, info), **kept}

    def forget_changing_contents(self) -> None:
        """Record no contents that differ once data were read and code ran: logs, lazy samples."""
        if not self.contents_checked:
            self.contents_checked = True
            now = record_inputs(self.plan, self.source)
            self.described = without_changing(self.described, now)

    def save(
        self,
        run: RunState,
        metrics: Mapping[str, float],
        clock: Mapping[str, Any],
        first: Callable[[], None] | None,
    ) -> None:
        """Begin to save a state; no other may be in flight.

        No step overwrites the tensors of its training state as long as that is held here. ``clock``
        says how long the run has lasted. ``first`` is called in the background before anything is
        written.
        """
        refuse_unknown(run.listeners, ("listeners",))
        refuse_unknown(run.data, ("data",))
        measured, monitor = dict(metrics), self.store.monitor
        if (value := find(measured, monitor)) is not None:
            measured[monitor] = value
        info = {**self.described, **clock}
        step = run.train.counters.step
        self.saver.save(
            run, step=step, metrics=measured, info=info, frozen=self.frozen, first=first
        )
        self.newest = (step, run.loop.owed is None)
        self.in_flight = run.train

    def saved(self, ask: Callable[[Saver], Path | str | None]) -> CheckpointSaved | None:
        """Return the event of the checkpoint in flight once it is durable, asking ``Saver``."""
        if self.in_flight is None:
            return None
        try:
            path = ask(self.saver)
        except BaseException:
            self.newest, self.in_flight = (-1, True), None
            raise
        if path is None:
            return None
        state, self.in_flight = self.in_flight, None
        return CheckpointSaved(state, Path(path))


def refuse_unknown(value: Any, path: tree.Path) -> None:
    """Refuse objects in states of listeners and loaders that a resumed run could not rebuild."""
    if isinstance(value, Enum) or (
        tree.is_node(value) and not isinstance(value, dict | list | tuple)
    ):
        raise UnsupportedError(
            f"{tree.path_string(path)} is a {type(value).__qualname__}; a resumed run makes no "
            "classes but its own, so the state of a listener or a loader is made of dicts, lists, "
            "tuples, tensors and plain values. Convert it in state_dict"
        )
    for key, child in tree.children(value) if tree.is_node(value) else ():
        refuse_unknown(child, (*path, key))
