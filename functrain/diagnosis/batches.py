"""What to say about a batch whose size is unknown, or which cannot be cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from functrain.core.batch import PLAIN, Path, sizes
from functrain.core.batch_splitting import MicroBatches
from functrain.tree import containers
from functrain.tree.objects import is_array


def why_unknown(batch: Any) -> str:
    """Say why the size of a batch is not evident."""
    found = {n: path for path, n in reversed(sizes(batch))}
    if None in found or not found:
        kind = _class_to_register(batch)
        return f"nothing says how many samples {'it' if kind is None else kind.__qualname__} has"
    listed = [f"{_place(path)} has {n}" for n, path in reversed(found.items())]
    return f"leading sizes differ: {', '.join(listed[:4])}"


def or_register(what: str, function: str, batch: Any) -> str:
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


def described(batches: Any) -> str:
    """Describe what was given where several batches were expected."""
    if isinstance(batches, Tensor):
        return f"a tensor of shape {list(batches.shape)}"
    if isinstance(batches, Mapping | str | MicroBatches):
        return f"a {type(batches).__name__}"
    if type(batches) is tuple:
        return "a tuple of tensors, which may be one batch or several: give a list"
    return "a list with MicroBatches in it"
