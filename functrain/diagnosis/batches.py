"""What to say about a batch whose size is unknown, or which cannot be cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core.batch import PLAIN, Path, sizes
from functrain.core.batch_splitting import MicroBatches
from functrain.errors import BatchSizeError, UnsupportedError
from functrain.tree import containers
from functrain.tree.objects import is_array

# A number that depends on a size, and the way to do without it.
_PURPOSES = {
    "mean": (
        "the mean over several batches or micro-batches is weighted by their samples",
        "Return functrain.Loss(value, weight=n) from the loss, n being the number of items in its "
        "mean",
    ),
    "duration": (
        "a duration of this run is counted in the samples of its batches",
        "Give durations in steps or epochs",
    ),
}


def unknown_size(batch: Any, purpose: Literal["mean", "duration"]) -> BatchSizeError:
    """Return the error of a number that depends on a size that is not evident."""
    what, remedy = _PURPOSES[purpose]
    return BatchSizeError(
        f"{what}, and the number in this batch is unknown: {why_unknown(batch)}. "
        f"{remedy}{_or_register('its size', 'size', batch)}."
    )


def not_cut(reason: str | None, batch: Any) -> UnsupportedError:
    """Return the error of a batch that cannot be cut, by default because of its size."""
    return UnsupportedError(
        "this batch cannot be cut into micro-batches: "
        f"{why_unknown(batch) if reason is None else reason}. Give the step the micro-batches, "
        "functrain.MicroBatches([...]), as fit does"
        f"{_or_register('how it is cut', 'split', batch)}."
    )


def not_several(batches: Any) -> UnsupportedError:
    """Return the error of one batch where several are expected."""
    return UnsupportedError(
        "MicroBatches: expected a list of batches, each as the loss takes it, got "
        f"{_described(batches)}. Cut a batch by functrain.data.split(batch, sizes)"
    )


def why_unknown(batch: Any) -> str:
    """Say why the size of a batch is not evident."""
    found = {n: path for path, n in reversed(sizes(batch))}
    if None in found or not found:
        kind = _class_to_register(batch)
        return f"nothing says how many samples {'it' if kind is None else kind.__qualname__} has"
    listed = [f"{_place(path)} has {n}" for n, path in reversed(found.items())]
    return f"leading sizes differ: {', '.join(listed[:4])}"


def _or_register(what: str, function: str, batch: Any) -> str:
    """Propose to register a function for a class in a batch, if there is one."""
    kind = _class_to_register(batch)
    if kind is None:
        return ""
    return f", or register {what}: @functrain.data.{function}.register({kind.__qualname__})"


def _class_to_register(batch: Any) -> type | None:
    """Return the class of the first object for which a size could be registered."""
    if isinstance(batch, (*PLAIN, Tensor, PackedSequence)) or is_array(batch):
        return None
    if type(batch) not in (dict, list, tuple):
        return type(batch)
    found = (_class_to_register(child) for _, child in containers.children(batch))
    return next((kind for kind in found if kind is not None), None)


def _place(path: Path) -> str:
    return f"batch{''.join(f'[{key!r}]' for key in path)}"


def _described(batches: Any) -> str:
    if isinstance(batches, Tensor):
        return f"a tensor of shape {list(batches.shape)}"
    if isinstance(batches, Mapping | str | MicroBatches):
        return f"a {type(batches).__name__}"
    if type(batches) is tuple:
        return "a tuple of tensors, which may be one batch or several: give a list"
    return "a list with MicroBatches in it"
