"""Batches as a loss gets them: copies, or the caller's tensors where no result depends on it.

Models write into their input, or pop keys from it, and a step must not change its batch. A copy of
each batch costs time and memory. So the loss gets copies in the first steps only, which show
whether it writes to its batch or keeps parts of it. If not, it gets the caller's tensors from then
on, in new containers. If it begins to write later, the step is refused.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain import tree
from functrain.core.batch import Batch
from functrain.errors import ImpurityError
from functrain.tree import containers
from functrain.tree.objects import is_array, is_registered

CopyTensor = Callable[[Tensor, torch.device | None], Tensor]

_WATCHED = 3
# The last bits of a result may depend on where in memory an input begins, and copies begin at
# multiples of this, in bytes.
_ALIGNMENT = 64
_VERSION = operator.attrgetter("_version")


@attrs.define(eq=False)
class BatchLending:
    """The memory of what a loss does with its batches; it never changes a result.

    Attributes:
        is_copied: whether the loss gets copies for ever.
        steps: how many steps found their gradients.
        copies: the memory of the copies that the last step made.
    """

    is_copied: bool = False
    steps: int = 0
    copies: list[weakref.ref[torch.UntypedStorage]] = attrs.field(factory=list)

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchLending, (self.is_copied,)  # a copy begins to watch again

    def begin_step(self) -> BatchLending:
        """Begin a step: memory that is left of the last one's copies is kept by the loss."""
        self.is_copied |= any(one() is not None for one in self.copies)
        self.copies.clear()
        return self

    def lend(self, batch: Batch, device: torch.device) -> LentBatch:
        """Return a batch as the loss may get it; call ``check_writes`` after the loss."""
        originals: list[Tensor] = []
        if self.is_copied or torch.is_inference_mode_enabled():
            return LentBatch(self, copied(batch, device), originals, originals, [])
        given: list[Tensor] = [] if self.steps < _WATCHED else originals

        def lent(tensor: Tensor, where: torch.device | None) -> Tensor:
            if not _is_lendable(tensor, where):
                return copied_tensor(tensor, where)
            originals.append(tensor)
            if given is not originals:
                tensor = tensor.clone()
                given.append(tensor)
            return tensor

        own = copied(batch, device, lent)
        return LentBatch(self, own, originals, given, list(map(_VERSION, given)))


ALWAYS_COPIED = BatchLending(is_copied=True)


class LentBatch(NamedTuple):
    """A batch as the loss gets it.

    Attributes:
        originals: the tensors of the caller that may be passed by reference.
        given: what the loss got for each: a copy, or the tensor itself.
        versions: of these, before the loss got them.
    """

    lending: BatchLending
    batch: Batch
    originals: list[Tensor]
    given: list[Tensor]
    versions: list[int]

    def check_writes(self) -> None:
        """Remember whether the loss wrote to the batch, and refuse it if that was the caller's.

        Raises:
            ImpurityError: a tensor of the caller was written to.
        """
        lending, given = self.lending, self.given
        is_written = list(map(_VERSION, given)) != self.versions
        flagged = [one for one in given if one.requires_grad]
        lending.is_copied |= is_written or bool(flagged)
        if given is not self.originals:
            # Torch counts no writes through .data and .numpy().
            pairs = zip(given, self.originals, strict=True)
            lending.is_copied |= not all(one.is_meta or tree.equal(one, old) for one, old in pairs)
            lending.copies += [weakref.ref(one.untyped_storage()) for one in given]
            return
        for tensor in flagged:
            if tensor.is_leaf:
                tensor.requires_grad_(False)
        if is_written:
            raise ImpurityError(
                "the loss",
                [
                    "the batch was written to during a step. The loss did not do so in the first "
                    f"{_WATCHED} steps, so the tensors were the caller's, and have other values now"
                ],
                "Write to a copy in the loss, x = x.clone(), and to no batch in another thread "
                "while a step computes on it.",
            )


def _is_lendable(tensor: Tensor, device: torch.device | None) -> bool:
    """Return whether computing on a tensor gives the bytes that computing on its copy gives."""
    return (
        type(tensor) is Tensor
        and tensor.layout is torch.strided
        and tensor.device == device
        and not (tensor.requires_grad or tensor.is_inference())
        and not (tensor.is_nested or tensor.is_conj())
        and tensor.is_contiguous()
        and tensor.data_ptr() % _ALIGNMENT == 0
    )


def copied_tensor(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return a copy on ``device``; host copies from pinned memory do not block."""
    if device is None or tensor.device == device:
        return tensor.clone()
    return tensor.to(device, non_blocking=tensor.is_pinned())


def copied(batch: Any, device: torch.device | None, copy_tensor: CopyTensor = copied_tensor) -> Any:
    """Return a copy of a batch whose tensors are on ``device``.

    ``None`` leaves each tensor where it is. Containers, tensors and arrays are new, and objects
    where there are tensors in them; other leaves are kept.

    Raises:
        UnsupportedError: there is an object with tensors in it that cannot be copied.
    """
    try:
        return _copied(batch, device, copy_tensor)
    except RecursionError as error:
        raise containers.not_copied(batch, "an object in it leads back to itself") from error


def _copied(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    if isinstance(batch, Tensor):
        return copy_tensor(batch, device)
    kind = type(batch)
    if kind is dict:
        return {key: _copied(child, device, copy_tensor) for key, child in batch.items()}
    if kind is tuple or kind is list:
        return kind([_copied(child, device, copy_tensor) for child in batch])
    if kind is str or batch is None:
        return batch
    if is_array(batch):
        return batch.copy()
    if isinstance(batch, PackedSequence):
        parts = {name: _copied(part, device, copy_tensor) for name, part in batch._asdict().items()}
        # The lengths stay on the host, where torch needs them.
        return batch._replace(**{**parts, "batch_sizes": batch.batch_sizes.clone()})
    if containers.is_structure(batch) and not is_registered(batch):
        return _rebuilt(batch, device, copy_tensor)
    has_clone, has_to = (callable(getattr(kind, name, None)) for name in ("clone", "to"))
    is_cloned = has_clone and has_to  # TensorDict, graphs of PyTorch Geometric
    if not is_cloned and not containers.is_container(batch):
        return batch
    # Only the class of an object knows what else in it depends on the device.
    is_moved = has_to and device is not None and _is_elsewhere(batch, device)
    where = None if is_moved else device
    fresh = batch.clone() if is_cloned else _rebuilt(batch, where, copy_tensor)
    moved = fresh.to(device) if is_moved else fresh
    return fresh if moved is None else moved  # a method may move the object in place


def _rebuilt(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    parts = [_copied(child, device, copy_tensor) for _, child in containers.children(batch)]
    return containers.rebuild(batch, parts)


def _is_elsewhere(batch: Any, device: torch.device) -> bool:
    """Return whether an object is on another device, or nothing can be seen of its tensors."""
    found = list(containers.tensors(batch))
    return not found or any(tensor.device != device for tensor in found)
