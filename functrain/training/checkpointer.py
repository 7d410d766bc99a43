"""The checkpoints of one ``fit`` call: what they say about the run, and which state is saved."""

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
from functrain.checkpoint.format.changed_buffers import described
from functrain.checkpoint.run_state import LoopState, RunState
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.core.wrapped import plain_paths, shown_layers
from functrain.errors import (
    UnsupportedError,
)
from functrain.training.early_stopping.rule import find
from functrain.training.events import CheckpointSaved


@attrs.define(eq=False)
class Keeper:
    """Saves run states to a store, and knows what is saved.

    Attributes:
        store: the run directory.
        saver: writes to it, in the background or not.
        described: what a checkpoint says it was made with.
        frozen: paths in a run state of parameters that are not trained.
        stands: the step of the newest checkpoint, and whether nothing was owed in it.
        under_way: the state that is being saved, until that is told.
    """

    store: Checkpoints
    saver: Saver
    described: dict[str, Any]
    frozen: frozenset[str]
    stands: tuple[int, bool] = (-1, True)
    under_way: TrainState | None = None

    @classmethod
    def of(cls, store: Checkpoints, program: Program) -> Keeper:
        """For the states of a program, which nobody may write to while they are being saved."""
        saver = Saver(store, inline=not store.background)
        still = program.fixed.model.params.keys() - set(program.fixed.trainable)
        frozen = frozenset(f"train.params.{path}" for path in still)
        return cls(store, saver, describe(program), frozen)

    def has(self, train: TrainState, loop: LoopState) -> bool:
        """Whether this state stands on the disk, or is on its way there."""
        return self.stands == (train.counters.step, loop.owed is None)

    def taken_up(self, train: TrainState, loop: LoopState) -> None:
        """Note that a state came from a checkpoint of this store."""
        self.stands = (train.counters.step, loop.owed is None)

    def save(
        self,
        run: RunState,
        found: Mapping[str, float],
        seconds: float,
        first: Callable[[], None] | None,
    ) -> None:
        """Begin to save; none may be under way.

        Args:
            run: the state.
            found: metrics of this step's evaluation; they decide what is best.
            seconds: time trained.
            first: what must be durable before.
        """
        refuse_unknown(run.listeners, ("listeners",))
        refuse_unknown(run.data, ("data",))
        measured, monitor = dict(found), self.store.monitor
        if (value := find(measured, monitor)) is not None:
            measured[monitor] = value
        info = {**self.described, "seconds": seconds}
        step = run.train.counters.step
        self.saver.save(
            run, step=step, metrics=measured, info=info, frozen=self.frozen, first=first
        )
        self.taken_up(run.train, run.loop)
        self.under_way = run.train

    def saved(self, ask: Callable[[Saver], Path | str | None]) -> CheckpointSaved | None:
        """What is to be told of the checkpoint under way, once.

        Args:
            ask: how: ``Saver.poll``, ``Saver.wait`` or ``Saver.close``.

        Raises:
            The save's error; its state then does not count as saved.
        """
        if self.under_way is None:
            return None
        try:
            path = ask(self.saver)
        except BaseException:
            self.stands, self.under_way = (-1, True), None
            raise
        if path is None:
            return None
        state, self.under_way = self.under_way, None
        return CheckpointSaved(state, Path(path))


def environment() -> dict[str, Any]:
    """What a bitwise equal continuation depends on besides the state."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


def describe(program: Program) -> dict[str, Any]:
    """What a checkpoint says it was made with: recipe, shapes, transformations, environment."""
    model = program.fixed.model
    persistent = plain_paths(model.module, list(model.module.state_dict())).values()
    return {
        "recipe": program.recipe.describe(),
        # Not whether it donates, which changes no bit.
        "step": getattr(program.device_step, "description", "eager"),
        "params": {path: list(value.shape) for path, value in model.params.items()},
        "modules": shown_layers(model.module),
        # Forwards may change them; so it is known whether a program begins with the same ones.
        "buffers": {path: described(value) for path, value in model.buffers.items()},
        # What a state_dict of the module has under more names, or not at all.
        "ties": dict(model.aliases),
        "transient": [path for path in model.buffers if path not in persistent],
        "environment": environment(),
    }


def refuse_unknown(value: Any, path: tree.Path) -> None:
    """Refuse what a resumed run could not make again in the state of a listener or a loader.

    Raises:
        UnsupportedError: an instance of a class, or a member of an enum; names the path.
    """
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
