"""Evaluation of all members on one batch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.evaluation import weights_of
from functrain.core.loss import LossOutput, computed, evaluate
from functrain.core.program import Program
from functrain.core.rng import scoped
from functrain.core.state import TrainState
from functrain.populations import states
from functrain.populations.batches import parts
from functrain.populations.draws import refuse_other_generators, streams_of
from functrain.populations.formulas import mappable
from functrain.populations.members import mapped, member_of, rows, stacked
from functrain.populations.states import seeds_of
from functrain.populations.step import draw_by_member
from functrain.transforms.graph.inputs import flatten, with_tensors
from functrain.transforms.hyperparameters import replaced

# The class is in program.py, which imports this file.
Population: TypeAlias = Any


def evaluated(
    pop: Population, state: TrainState, batch: Batch, weights: str, hyperparameters: dict[str, Any]
) -> LossOutput:
    """Return what the loss, or ``evaluate``, gives for each member."""
    fixed, recipe, device = pop.fixed, pop.recipe, state.device
    function = recipe.evaluate or recipe.loss
    seeds, number = seeds_of(state), state.counters.step

    def of_one(held: dict[str, Any], own: dict[str, Any], batch: Batch) -> LossOutput:
        of_member = attrs.evolve(fixed, recipe=replaced(recipe, own))
        values = weights_of(of_member, attrs.evolve(state, **held), weights)
        buffers = {path: buffer.clone() for path, buffer in held["buffers"].items()}
        model = fixed.model.bound(values, buffers, training=False)
        with refuse_other_generators(), mappable(), model as module:
            return evaluate(function, module, copied(batch, device), device)

    names = ("params", "buffers", "optimizer", "ema")
    held = {name: getattr(state, name) for name in names}
    axes = (0, 0, 0 if pop.batches == "own" else None)
    parts(batch, 1, len(seeds), pop.batches)  # which checks it

    def of_some(some: slice) -> LossOutput:
        seed, streams = streams_of(seeds[some], ("evaluate", number))
        own = rows(batch, some) if pop.batches == "own" else batch
        trees = rows(held, some), rows(hyperparameters, some), own
        evaluate_members = functools.partial(mapped, of_one, axes, *trees)
        with scoped(seed, device):
            found: LossOutput = draw_by_member(evaluate_members, streams, pop.seen_in_evaluation)
        return found

    with torch.set_grad_enabled(recipe.eval_gradients):
        loss_output: LossOutput = joined(list(map(of_some, pop.chunks)))
    return loss_output._replace(value=loss_output.value.detach())


def one_by_one(
    pop: Population, programs: Sequence[Program], state: TrainState, batch: Batch, weights: str
) -> LossOutput:
    """Return what :func:`evaluated` does, for models that ``torch.func.vmap`` cannot map.

    Layers such as LSTM, and indexing by booleans, can be evaluated in no other way.
    """
    function = pop.recipe.evaluate or pop.recipe.loss

    def of_one(index: int) -> LossOutput:
        own = rows(batch, index) if pop.batches == "own" else batch
        program: Program = programs[index].evaluated_by(function)
        return program.loss_output(states.member(state, index), own, weights)

    members = range(len(programs))
    loss_output: LossOutput = stacked(map(of_one, members), len(programs), "evaluation")
    return loss_output


def metrics_of(loss_output: LossOutput, members: int, device: torch.device) -> dict[str, Tensor]:
    """Return loss and metrics, each of shape ``[members]``."""
    if all(isinstance(metric, Tensor) for metric in loss_output.metrics.values()):
        return {"loss": loss_output.value, **loss_output.metrics}
    each = [computed(member_of(loss_output.metrics, member), device) for member in range(members)]
    found = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    return {"loss": loss_output.value, **found}


def slices(members: int, chunk_size: int | None) -> list[slice]:
    """Return groups of members that differ in size by one at most, none of a single member.

    ``chunk_size`` is that of the largest group (3 instead of 2 where one would be left over).

    Example:
        >>> [(one.start, one.stop) for one in slices(10, 4)]
        [(0, 4), (4, 7), (7, 10)]
    """
    count = -(-members // (chunk_size or members))
    count = max(1, min(count, members // 2))
    size, longer = divmod(members, count)
    ends = [size * n + min(n, longer) for n in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def joined(trees: list[Any]) -> Any:
    """Return one tree of the members of several."""
    return with_tensors(trees[0], map(torch.cat, zip(*map(flatten, trees), strict=True)))


def in_chunks(
    step: Callable[[Any, slice], tuple[Any, Any]], state: Any, chunks: list[slice]
) -> tuple[Any, Any]:
    """Make a step of each group of members.

    A step gets views of the state of some members, over which it may write their next state: then
    there is no copy.
    """
    if len(chunks) == 1:
        return step(state, chunks[0])
    given = [rows(state, members) for members in chunks]
    found = [step(own, members) for own, members in zip(given, chunks, strict=True)]
    after, outputs = [one for one, _ in found], joined([one for _, one in found])
    views, new = [flatten(one) for one in given], [flatten(one) for one in after]
    if len(new[0]) != len(views[0]):  # a first step may add counts to an optimizer's state
        return joined(after), outputs
    columns = zip(flatten(state), zip(*views, strict=True), zip(*new, strict=True), strict=True)
    return with_tensors(after[0], iter([_whole(*column) for column in columns])), outputs


def _whole(old: Tensor, views: tuple[Tensor, ...], new: tuple[Tensor, ...]) -> Tensor:
    in_place = all(one is view for one, view in zip(new, views, strict=True))
    return old if in_place else torch.cat(new)
