"""Metrics of a population over a data set: merged over batches, and numbers of each member."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.loss import LossOutput, computed, merged, not_negative
from functrain.core.precision import widest
from functrain.core.protocol import AnyProgram
from functrain.core.state import TrainState
from functrain.metrics import Mean
from functrain.populations.batches import of_members
from functrain.populations.members import member_of, rows
from functrain.populations.program import Population


class Each(NamedTuple):
    """A metric that is a value, of each member."""

    each: list[Any]

    @property
    def higher_is_better(self) -> Any:
        """Return what the metric says of itself."""
        return getattr(self.each[0], "higher_is_better", None)

    def merge(self, other: Each) -> Each:
        """Return the metric of each member over the samples of both."""
        return Each([merged(pair) for pair in zip(self.each, other.each, strict=True)])


def sized(program: AnyProgram, batch: Batch) -> Batch:
    """Return the batch whose size is that of one member."""
    own = isinstance(program, Population) and program.batches == "own"
    return rows(batch, 0) if own else batch


def of_batch(program: AnyProgram, value: Any, weight: Tensor) -> Any:
    """Return what a batch adds to a metric: a mean, or the value that the loss returned."""
    if not isinstance(program, Population):
        return Mean.of(value, weight) if isinstance(value, Tensor) else value
    if not isinstance(value, Tensor):
        return Each([member_of(value, member) for member in range(len(program))])
    wide = value.detach().to(widest(value.device))
    each = weight.detach().to(wide).expand_as(wide)
    return Mean((wide * each).masked_fill(each == 0, 0), each)


def weight_of(loss_output: LossOutput, batch: Batch) -> Tensor:
    """Return the weight of a batch, or one for each member."""
    weight = loss_output.weight
    if isinstance(weight, Tensor) and weight.ndim:
        return not_negative(weight)
    return loss_output.weight_of(batch)


def numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a list with the number of each member, by metric."""
    found: dict[str, list[float]] = {}
    for name, value in values.items():
        if isinstance(value, Mean):
            found[name] = value.compute().tolist()
            continue
        each = [computed({name: one}, torch.device("cpu")) for one in value.each]
        found |= {key: [one[key].item() for one in each] for key in each[0]}
    return found


def whole(batch: Batch) -> Batch:
    """Return the batch itself, which all members take."""
    return batch


def running(
    program: AnyProgram, state: TrainState
) -> tuple[AnyProgram, TrainState, Callable[[Batch], Batch]]:
    """Return the members that have not stopped: a population, its state, and the cut to a batch."""
    if not isinstance(program, Population):
        return program, state, whole
    some, members = program.running(state), len(program)
    if len(some) == members:
        return program, state, whole
    own = partial(of_members, members=members, indices=some)
    return *program.only(state, some), own if program.batches == "own" else whole


def widened(program: AnyProgram, state: TrainState, means: dict[str, Any]) -> dict[str, Any]:
    """Return numbers of the members that are running as those of all, ``None`` for the others."""
    if not isinstance(program, Population):
        return means
    some = program.running(state)
    whole = {}
    for name, each in means.items():
        by_member = dict(zip(some, each, strict=True))
        whole[name] = [by_member.get(member) for member in range(len(program))]
    return whole


def of_running(program: AnyProgram, state: TrainState, means: dict[str, Any]) -> dict[str, Any]:
    """Return lists of numbers of all members with ``None`` for those that have stopped."""
    if not isinstance(program, Population):
        return means
    some = program.running(state)

    def own(each: Any) -> Any:
        if not isinstance(each, list):  # a number that a listener gave
            return each
        return [one if member in some else None for member, one in enumerate(each)]

    return {name: own(each) for name, each in means.items()}


def parents(program: AnyProgram, replacements: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the member that each member goes on from, where one was replaced."""
    by = {one["member"]: one["by"] for one in replacements}
    return {"parent": [by.get(n, n) for n in range(len(cast(Population, program)))]} if by else {}
