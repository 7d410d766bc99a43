"""The questions of a run about the program that it trains, answered for one model.

A program of several models has answers of its own: ``program.in_fit``, of a subclass, and
``program.decisions``, the class of its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.loss import LossOutput
from functrain.core.protocol import AnyProgram
from functrain.errors import RunChangedError
from functrain.metrics import Mean, computed

Evaluated = tuple[AnyProgram, Any, Callable[[Batch], Batch]]


class OneModel:
    """The answers of a program of one model."""

    kind = "one program"

    def __init__(self, program: AnyProgram) -> None:
        self.program: Any = program

    # -- evaluation --------------------------------------------------------------------------

    def evaluated(self, state: Any) -> Evaluated:
        """Return the program and the state to evaluate in a run, and the cut to each batch."""
        return self.program, state, whole

    def batch_of_one(self, batch: Batch) -> Batch:
        """Return the part of a batch that has its number of samples."""
        return batch

    def weight(self, loss_output: LossOutput, batch: Batch) -> Tensor:
        """Return the weight of a batch in the mean over several."""
        return loss_output.weight_of(batch)

    def metric(self, value: Any, weight: Tensor) -> Any:
        """Return what a batch adds to a metric: a mean, or the value that the loss returned."""
        return Mean.of(value, weight) if isinstance(value, Tensor) else value

    def numbers(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the numbers that merged metrics compute."""
        first = next((one for one in values.values() if isinstance(one, Mean)), None)
        device = torch.device("cpu") if first is None else first.total.device
        return {name: value.item() for name, value in computed(values, device).items()}

    def widened(self, state: Any, means: dict[str, Any]) -> dict[str, Any]:
        """Return the numbers of an evaluation, which may have taken a part of the program."""
        return means

    def reported(self, state: Any, means: dict[str, Any]) -> dict[str, Any]:
        """Return the means over an epoch at the end of which the run has this state."""
        return means

    # -- the run -----------------------------------------------------------------------------

    def is_over(self, state: Any) -> bool:
        """Return whether a state has nothing left to train."""
        return False

    def require_unfinished(self, state: Any) -> None:
        """Refuse a given state with nothing left to train."""

    def describe(self) -> dict[str, Any] | None:
        """Return what checkpoints record of the models, where there are several."""
        return None

    def check_record(self, info: dict[str, Any], path: Path, state: Any = None) -> dict[str, Any]:
        """Refuse to resume a run of another kind, and return its record."""
        if info.get("population") is not None:
            raise self.other_kind("a population", path)
        return info

    def other_kind(self, kind: str, path: Path) -> RunChangedError:
        """Return the error for a run of another kind."""
        return RunChangedError(
            f"the run in {path.parent} is one of {kind}, got {self.kind}. Continue it with that, "
            "or choose another directory"
        )

    def warn_of_stopped(self, state: Any, path: Path) -> None:
        """Warn of what a resumed run trains no more, by a rule that it had before."""


def in_fit(program: AnyProgram) -> OneModel:
    """Return the answers of a program to a run."""
    if not hasattr(type(program), "in_fit"):  # a program explains attributes that it lacks
        return OneModel(program)
    own: OneModel = cast(Any, program).in_fit
    return own


def whole(batch: Batch) -> Batch:
    """Return the batch itself."""
    return batch
