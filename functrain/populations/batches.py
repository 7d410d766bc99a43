"""The batch of a step of all members: one that they share, or one of each."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch

from functrain.core.batch_splitting import MicroBatches, Split, split_step
from functrain.errors import ConfigurationError
from functrain.populations.members import combined, rows
from functrain.transforms.graph.inputs import flatten
from functrain.tree import containers, objects

Batches: TypeAlias = Literal["shared", "own"]


def parts(batch: Any, accumulate: int, members: int, batches: Batches) -> Split:
    """Cut a batch into micro-batches.

    With own batches, the tensors have the axis of members in front. The sizes of parts are those of
    one member.
    """
    if batches == "shared":
        return split_step(batch, accumulate)
    given = batch.batches if isinstance(batch, MicroBatches) else [batch]
    for one in given:
        _require_axis(one, members)
    if accumulate < 2 and len(given) == 1:
        return split_step(rows(given[0], 0), 1)._replace(parts=given)
    each = [split_step(view(batch, member), accumulate) for member in range(members)]
    columns = zip(*[found.parts for found in each], strict=True)
    together = [combined(lambda *own: torch.stack(own), *column) for column in columns]
    return each[0]._replace(parts=together)


def of_members(batch: Any, members: int, indices: list[int]) -> Any:
    """Return the batches of some members.

    The tensors of the batch have the axis of all members in front.
    """
    if isinstance(batch, MicroBatches):
        return MicroBatches([of_members(one, members, indices) for one in batch.batches])
    _require_axis(batch, members)
    return rows(batch, indices)


def _require_axis(batch: Any, members: int) -> None:
    if any(objects.is_array(leaf) for leaf in _leaves(batch)):
        raise ConfigurationError(
            'batches="own": expected tensors, got a NumPy array: give torch.from_numpy(array)'
        )
    for tensor in flatten(batch):
        if not tensor.ndim or tensor.shape[0] != members:
            raise ConfigurationError(
                f'batches="own": expected tensors of shape [{members}, ...], with a batch for each '
                f"of the {members} members, got one of shape {list(tensor.shape)}. Stack the "
                'batches, or make the population with batches="shared"'
            )


def _leaves(node: Any) -> list[Any]:
    if not containers.is_container(node):
        return [node]
    return [leaf for _, child in containers.children(node) for leaf in _leaves(child)]


def view(batch: Any, member: int) -> Any:
    """Return the batch of one member, from one or several with the axis of members in front."""
    if isinstance(batch, MicroBatches):
        return MicroBatches([rows(one, member) for one in batch.batches])
    return rows(batch, member)
