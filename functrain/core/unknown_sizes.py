"""What is said where the size of a batch is not evident and a number depends on it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core.sizes import PLAIN, Path, size, votes
from functrain.errors import BatchSizeError
from functrain.tree import containers, objects

# What depends on a size, and how to do without.
Purpose = tuple[str, str]
MEAN: Purpose = (
    "the mean over several batches or micro-batches is weighted by their samples",
    "Return functrain.Loss(value, weight=n) from the loss, n being what its mean was taken over",
)
DURATION: Purpose = (
    "a duration of this run is counted in the samples of its batches",
    "Give durations in steps or epochs",
)


def known_size(batch: Any, purpose: Purpose = MEAN) -> int:
    """Return the size of a batch for a number that depends on it.

    Args:
        batch: any nesting of containers and objects.
        purpose: the number, and how to do without.

    Raises:
        BatchSizeError: the size is not evident.
    """
    found = size(batch)
    if found is None:
        what, remedy = purpose
        register = or_register("its size", "size", culprit(batch))
        raise BatchSizeError(
            f"{what}, and it is not evident how many there are in this one: {reason(batch)}. "
            f"{remedy}{register}."
        )
    return found


def reason(batch: Any) -> str:
    """Say why the size of a batch is not evident."""
    found = [(_place(path), n) for path, n in votes(batch)]
    if not found:
        kind = culprit(batch)
        return f"there is no tensor to be seen in {'it' if kind is None else kind.__qualname__}"
    shown = {n: place for place, n in reversed(found)}
    listed = ", ".join(f"{place} has {n}" for n, place in list(shown.items())[::-1][:4])
    return f"leading sizes differ: {listed}"


def culprit(batch: Any) -> type | None:
    """The class of the first object in a batch for which a size could be registered."""
    if isinstance(batch, (*PLAIN, Tensor, PackedSequence)) or objects.is_array(batch):
        return None
    if type(batch) in (dict, list, tuple):
        found = (culprit(child) for _, child in containers.children(batch))
        return next((kind for kind in found if kind is not None), None)
    return type(batch)


def or_register(what: str, function: str, kind: type | None) -> str:
    """Propose to register a function for a class, if it is one that can be registered."""
    if kind is None:
        return ""
    return f", or register {what}: @functrain.data.{function}.register({kind.__qualname__})"


def _place(path: Path) -> str:
    keys = [key if isinstance(key, str) and key[:1] in ".[" else f"[{key!r}]" for key in path]
    return f"batch{''.join(keys)}"
