"""Batches by reference: the loss computes on the caller's tensors where no result depends on it.

A step must not change its batch, and a copy of each batch costs time and memory. So the loss gets
copies in the first steps only, which show whether it writes to its batch or keeps parts of it. If
not, it gets the caller's tensors from then on, in new containers. Should it begin to write later,
a warning says so, and each batch is copied again.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core.batch import Batch, copied, copied_tensor
from functrain.errors import FunctrainWarning
from functrain.errors.base import warn

_WATCHED = 3
# The last bits of a result may depend on where in memory an input begins, and copies begin at
# multiples of this, in bytes.
_ALIGNMENT = 64


class _Pair(NamedTuple):
    """A tensor of the caller, and the copy of it or itself, as the loss gets it."""

    original: Tensor
    given: Tensor
    version: int


@attrs.define(eq=False)
class BatchLending:
    """The memory of what a loss does with its batches; it never changes a result.

    Attributes:
        is_copied: whether the loss gets copies for ever.
        steps: how many steps there were.
        copies: the memory of the copies that the last step made.
    """

    is_copied: bool = False
    steps: int = 0
    copies: list[weakref.ref[torch.UntypedStorage]] = attrs.field(factory=list)

    def of_next_step(self) -> BatchLending:
        """Begin a step: memory that is left of the last one's copies is kept by the loss."""
        self.steps += 1
        self.is_copied |= any(one() is not None for one in self.copies)
        self.copies.clear()
        return self

    def lend(self, batch: Batch, device: torch.device) -> LentBatch:
        """Return a batch that the loss may get, to be :meth:`~LentBatch.settled` afterwards."""
        if self.is_copied:
            return LentBatch(self, copied(batch, device), [])
        pairs: list[_Pair] = []
        is_watched = self.steps <= _WATCHED

        def lent(tensor: Tensor, where: torch.device | None) -> Tensor:
            if not _is_lendable(tensor, where):
                return copied_tensor(tensor, where)
            given = tensor.clone() if is_watched else tensor
            pairs.append(_Pair(tensor, given, given._version))
            return given

        return LentBatch(self, copied(batch, device, lent), pairs)


ALWAYS_COPIED = BatchLending(is_copied=True)


class LentBatch(NamedTuple):
    """A batch as the loss gets it.

    Attributes:
        pairs: of the tensors that may be passed by reference, those that the loss got.
    """

    lending: BatchLending
    batch: Batch
    pairs: list[_Pair]

    def settle(self) -> None:
        """Remember whether the loss wrote to the batch, and warn if it was the caller's.

        Warns:
            FunctrainWarning: a tensor of the caller was written to.
        """
        lending = self.lending
        if lending.steps <= _WATCHED:
            lending.is_copied |= any(map(_is_written_copy, self.pairs))
            storages = [pair.given.untyped_storage() for pair in self.pairs]
            lending.copies += map(weakref.ref, storages)
        elif written := [pair for pair in self.pairs if _is_written(pair)]:
            lending.is_copied = True
            for pair in written:
                if pair.original.is_leaf:
                    pair.original.requires_grad_(False)
            warn(
                f"{len(written)} tensors of a batch were written to during a step, after the first "
                f"{_WATCHED} steps, in which the loss did not write to its batch. So they were "
                "those of the caller, which now have other values; from now on, steps compute on "
                "copies. Write to a copy in the loss, x = x.clone(), and to no batch in another "
                "thread while a step computes on it",
                FunctrainWarning,
            )


def _is_lendable(tensor: Tensor, device: torch.device | None) -> bool:
    """Return whether computing on a tensor gives the bytes that computing on its copy gives."""
    if type(tensor) is not Tensor or tensor.device != device or tensor.requires_grad:
        return False
    if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_inference():
        return False
    is_plain = tensor.is_contiguous() and not tensor.is_conj()
    return is_plain and tensor.data_ptr() % _ALIGNMENT == 0


def _is_written(pair: _Pair) -> bool:
    given = pair.given
    return given._version != pair.version or given.requires_grad


def _is_written_copy(pair: _Pair) -> bool:
    # Torch counts no writes through .data and .numpy().
    same = pair.given.is_meta or tree.equal(pair.given, pair.original)
    return _is_written(pair) or not same
