"""The checkpoints of one ``fit`` call: the record of the run in them, and which state is saved."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import torch

from functrain import tree
from functrain.checkpoint import Checkpoints, Saver
from functrain.checkpoint.format.changed_in_use import described
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.module_tensors import plain_paths, shown_layers
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.state import TrainState
from functrain.data import Source
from functrain.data.description import describe as describe_data
from functrain.distributed.group import World
from functrain.errors import UnsupportedError
from functrain.training.early_stopping.rule import find
from functrain.training.events import CheckpointSaved
from functrain.training.members import record


@attrs.define(eq=False)
class Checkpointer:
    """Saves the states of a run to a store, and knows which of them are saved.

    Attributes:
        saver: writes to it, in the background or not.
        described: what each checkpoint records about the run.
        frozen: paths in a run state of parameters that are not trained.
        newest: the step of the newest checkpoint, and whether nothing was pending in it.
        in_flight: the state that is being saved, until its outcome is reported.
        contents_checked: whether the contents of the data were described a second time.
    """

    store: Checkpoints
    saver: Saver
    source: Source
    described: dict[str, Any]
    frozen: frozenset[str]
    newest: tuple[int, bool] = (-1, True)
    in_flight: TrainState | None = None
    contents_checked: bool = False

    @classmethod
    def of(
        cls, store: Checkpoints, program: AnyProgram, source: Source, world: World
    ) -> Checkpointer:
        """Make one for the states of a program, which must not be overwritten while in flight."""
        ranks = world if world.size > 1 else None
        saver = Saver(store, inline=not store.background, world=ranks)
        frozen = frozenset(
            f"train.{prefix}params.{path}"
            for prefix, leaf in program.leaves().items()
            for path in leaf.fixed.model.params.keys() - set(leaf.fixed.trainable)
        )
        described = {**describe(program), "data": describe_data(source)}
        return cls(store, saver, source, described, frozen)

    def has(self, train: TrainState, loop: LoopState) -> bool:
        """Return whether this state is saved, or is being saved."""
        return self.newest == (train.counters.step, loop.owed is None)

    def resume(self, train: TrainState, loop: LoopState, info: dict[str, Any]) -> None:
        """Note that a state was loaded from a checkpoint of this store."""
        self.newest = (train.counters.step, loop.owed is None)
        if "parent" in info:
            self.described["parent"] = info["parent"]
        if (info.get("data") or {}).get("contents", "") is None:
            self.described["data"]["contents"] = None

    def forget_changing_contents(self) -> None:
        """Record no contents of data that differ once they were read: logs, lazy samples."""
        if self.contents_checked:
            return
        self.contents_checked = True
        data = self.described["data"]
        if data["contents"] not in (None, describe_data(self.source)["contents"]):
            data["contents"] = None

    def save(
        self,
        run: RunState,
        metrics: Mapping[str, float],
        seconds: float,
        first: Callable[[], None] | None,
    ) -> None:
        """Begin to save a state; no other may be in flight.

        No step overwrites the tensors of its training state as long as that is held here. ``first``
        is called in the background before anything is written.
        """
        refuse_unknown(run.listeners, ("listeners",))
        refuse_unknown(run.data, ("data",))
        measured, monitor = dict(metrics), self.store.monitor
        if (value := find(measured, monitor)) is not None:
            measured[monitor] = value
        info = {**self.described, "seconds": seconds}
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


def environment() -> dict[str, Any]:
    """Return the parts of the environment on which bitwise equal resumption depends."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def describe(program: AnyProgram) -> dict[str, Any]:
    """Return the record that checkpoints keep: recipe, shapes, transformations, environment."""
    leaves = program.leaves()
    one = leaves.get("")
    own = {
        "recipe": program.recipe.describe(),
        "environment": environment(),
        "population": record.describe(program),
    }
    if one is not None:
        return {**own, **_described(one)}
    each = {prefix.rstrip("."): _described(leaf) for prefix, leaf in leaves.items()}
    # By part, as of one program, and then by program.
    return {**own, **{part: {k: found[part] for k, found in each.items()} for part in _PARTS}}


_PARTS = ("step", "params", "modules", "buffers", "ties", "transient")


def _described(program: Program) -> dict[str, Any]:
    model = program.fixed.model
    persistent = plain_paths(model.module, list(model.module.state_dict())).values()
    return {
        # Donation is left out: it changes no bit.
        "step": getattr(program.device_step, "description", "eager"),
        "params": {path: list(value.shape) for path, value in model.params.items()},
        "modules": shown_layers(model.module),
        # Forwards may change buffers; these tell whether a program begins with the same ones.
        "buffers": {path: described(value) for path, value in model.buffers.items()},
        # Tensors with several names in a state_dict of the module, or with none.
        "ties": dict(model.aliases),
        "transient": [path for path in model.buffers if path not in persistent],
    }


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
