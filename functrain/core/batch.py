"""The batch of a step, or its micro-batches: counted, and cut where the program asks for it.

A batch is any nesting of containers (see ``tree/containers.py``) with tensors and anything else
(strings, ``None``) in it. Its samples are counted in ``batch_sizes.py``, and it is cut in
``batch_splitting.py``. The model gets a copy: models that write into their input, or pop keys from
it, would change the caller's batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import attrs
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core import batch_splitting
from functrain.core.batch_sizes import class_to_register, count, or_register, size, why_unknown
from functrain.errors import BatchSizeError, ConfigurationError, UnsupportedError
from functrain.tree import containers, objects

Batch = Any


def _several(batches: Any) -> list[Batch]:
    """Return several batches as a list; one batch would be cut into its rows or columns."""
    one = isinstance(batches, Tensor | Mapping | str | MicroBatches)
    listed = [] if one else list(batches)
    one |= type(batches) is tuple and bool(listed) and all(isinstance(b, Tensor) for b in listed)
    if one or any(isinstance(each, MicroBatches) for each in listed):
        raise UnsupportedError(
            "MicroBatches: expected a list of batches, each as the loss takes it, got "
            f"{_named(batches)}. Cut a batch by functrain.data.split(batch, sizes)"
        )
    return listed


def _named(batches: Any) -> str:
    if isinstance(batches, Tensor):
        return f"a tensor of shape {list(batches.shape)}"
    if isinstance(batches, Mapping | str | MicroBatches):
        return f"a {type(batches).__name__}"
    if type(batches) is tuple:
        return "a tuple of tensors, which may be one batch or several: give a list"
    return "a list with MicroBatches in it"


@attrs.frozen(eq=False)
class MicroBatches:
    """Several loader batches that make up one step.

    ``train_step`` averages their gradients by weight, so that k micro-batches do what one big
    batch would. ``fit`` builds these from the loader for a program with ``accumulate=k``.

    Attributes:
        batches: the loader batches, of equal or unequal size.

    Raises:
        UnsupportedError: it is one batch.

    Example:
        >>> import torch
        >>> MicroBatches([torch.zeros(2, 3), torch.zeros(1, 3)])
        MicroBatches(batches=[tensor([[0., 0., 0.],
                [0., 0., 0.]]), tensor([[0., 0., 0.]])])
    """

    batches: list[Batch] = attrs.field(converter=_several)


# A number that depends on a size, and the way to do without it.
Purpose = tuple[str, str]
MEAN: Purpose = (
    "the mean over several batches or micro-batches is weighted by their samples",
    "Return functrain.Loss(value, weight=n) from the loss, n being the number of items in its mean",
)
DURATION: Purpose = (
    "a duration of this run is counted in the samples of its batches",
    "Give durations in steps or epochs",
)


class Split(NamedTuple):
    """The micro-batches of one step.

    Attributes:
        parts: micro-batches that have samples.
        samples: samples in all of them.
        consumed: loader batches they came from.
        empty: of these, the ones without samples.
    """

    parts: list[Batch]
    samples: int
    consumed: int
    empty: int


def split(batch: Batch, accumulate: int) -> Split:
    """Cut a batch into at most ``accumulate`` micro-batches, without those that have no samples.

    A batch is :class:`MicroBatches`; or, with ``accumulate`` above 1, a list of up to that many
    batches (tuples, lists, dicts and their like); or one batch, which is cut along its samples (see
    :func:`functrain.data.split`) into parts of nearly equal size.

    Example:
        >>> import torch
        >>> [len(part) for part in split(torch.zeros(7, 2), 3).parts]
        [3, 2, 2]
    """
    if isinstance(batch, MicroBatches):
        given = batch.batches
    elif accumulate > 1 and _is_list_of_batches(batch):
        given = batch
        if len(given) > accumulate:
            raise ConfigurationError(
                f"{len(given)} micro-batches were given to a step of a program with "
                f"accumulate={accumulate}. Give at most that many, or wrap them to say that they "
                "are one step: functrain.MicroBatches([...])."
            )
    elif samples := count(batch):
        parts = [batch] if accumulate < 2 else batch_splitting.into(batch, accumulate)
        return Split(parts, samples, 1, 0)
    else:
        return Split([], 0, 1, 1)
    counts = [count(part) for part in given]
    parts = [part for part, samples in zip(given, counts, strict=True) if samples]
    return Split(parts, sum(counts), len(given), len(given) - len(parts))


def require_sizes(batch: Batch) -> None:
    """Refuse a batch of unknown size where a duration is counted in samples."""
    for each in batch.batches if isinstance(batch, MicroBatches) else [batch]:
        known_size(each, DURATION)


def _is_list_of_batches(batch: Batch) -> bool:
    # A loader's own batch is often the list [inputs, targets]; its elements are tensors.
    return isinstance(batch, list) and all(map(containers.is_container, batch))


def known_size(batch: Any, purpose: Purpose = MEAN) -> int:
    """Return the size of a batch for a number that depends on it."""
    found = size(batch)
    if found is None:
        what, remedy = purpose
        register = or_register("its size", "size", class_to_register(batch))
        raise BatchSizeError(
            f"{what}, and the number in this batch is unknown: {why_unknown(batch)}. "
            f"{remedy}{register}."
        )
    return found


def copied_tensor(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return a copy on ``device``; host copies from pinned memory do not block."""
    if device is None or tensor.device == device:
        return tensor.clone()
    return tensor.to(device, non_blocking=tensor.is_pinned())


CopyTensor = Callable[[Tensor, torch.device | None], Tensor]


def copied(batch: Any, device: torch.device | None, copy_tensor: CopyTensor = copied_tensor) -> Any:
    """Return a copy of a batch whose tensors are on ``device``.

    ``None`` leaves each tensor where it is. Containers, tensors and arrays are new, and objects
    where there are tensors in them; other leaves are kept.
    """
    if isinstance(batch, Tensor):
        return copy_tensor(batch, device)
    kind = type(batch)
    if kind is dict:
        return {key: copied(child, device, copy_tensor) for key, child in batch.items()}
    if kind is tuple or kind is list:
        return kind([copied(child, device, copy_tensor) for child in batch])
    if kind is str or batch is None:
        return batch
    if isinstance(batch, PackedSequence):
        return _packed_copy(batch, device, copy_tensor)
    if containers.is_structure(batch) and not objects.is_registered(batch):
        parts = [copied(child, device, copy_tensor) for _, child in containers.children(batch)]
        return containers.rebuild(batch, parts)
    return _object_copy(batch, device, copy_tensor)


def _object_copy(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    """Copy an object that is no container: on its own device first, then moved by its ``to``.

    Only its class knows what else depends on the device; ``to`` may write to the object or return
    another. ``clone`` is trusted where torch's pytree knows the class, as it knows TensorDict, or
    where nothing can be seen of the contents.
    """
    if objects.is_array(batch):
        return batch.copy()
    if objects.is_registered(batch):
        return _registered_copy(batch, device, copy_tensor)
    inside = objects.contents(batch)
    if not inside.tensors:
        return _moved(batch.clone(), device) if objects.moves(batch) else batch
    parts = [leaf for _, leaf in inside.leaves if objects.is_part(leaf)]
    moves = _moves_itself(batch, parts, device)
    leaves = [
        copied(leaf, None if moves else device, copy_tensor) if objects.is_part(leaf) else leaf
        for _, leaf in inside.leaves
    ]
    fresh = objects.rebuilt(batch, inside, leaves)
    return _moved(fresh, device) if moves else fresh


def _registered_copy(batch: Any, device: torch.device | None, copy_tensor: CopyTensor) -> Any:
    parts = [child for _, child in containers.children(batch)]
    moves = _moves_itself(batch, parts, device)
    if objects.moves(batch):
        fresh = batch.clone()
    else:
        where = None if moves else device
        fresh = containers.rebuild(batch, [copied(part, where, copy_tensor) for part in parts])
    return _moved(fresh, device) if moves else fresh


def _moves_itself(batch: Any, parts: list[Any], device: torch.device | None) -> bool:
    """Return whether an object has to move, and has a method to do so."""
    if device is None or not callable(getattr(type(batch), "to", None)):
        return False
    return any(tensor.device != device for part in parts for tensor in containers.tensors(part))


def _moved(batch: Any, device: torch.device | None) -> Any:
    moved = batch if device is None else batch.to(device)
    return batch if moved is None else moved


def _packed_copy(
    batch: PackedSequence, device: torch.device | None, copy_tensor: CopyTensor
) -> PackedSequence:
    """Copy a packed sequence; its lengths stay on the host, where torch needs them."""
    parts = {name: copied(part, device, copy_tensor) for name, part in batch._asdict().items()}
    return batch._replace(**{**parts, "batch_sizes": batch.batch_sizes.clone()})
