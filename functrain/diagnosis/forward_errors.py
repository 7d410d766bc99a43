"""Notes on errors of the user's model and loss: where, with which batch, and what to do."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from functrain import tree
from functrain.core.batch import Batch
from functrain.core.loss import evaluate
from functrain.errors import FunctrainError
from functrain.errors.nearest import nearest
from functrain.tree.printing import summary, totals

_DTYPE = (
    "convert the data once, x.float() for inputs (NumPy's default is float64), y.long() for class "
    "labels"
)
_LABELS = "class labels are integers, y.long(); probabilities have the shape of the logits"
_UNPACK = "the model gets what the loss gives it: unpack the batch first, as in x, y = batch"
_DEVICE = (
    "the batch is on the device of the state already. Make other tensors there, device=x.device, "
    "and keep those of the model as buffers, self.register_buffer"
)
# Patterns of torch's messages, and what to do; groups of the pattern fill the braces.
_REMEDIES = {
    r"Target (\S+) is out of bounds": (
        "class labels are 0 to C - 1, where C is the last size of the model's output: give the "
        "model more outputs, or renumber the labels"
    ),
    r"shapes cannot be multiplied \(\d+x(\d+) and (\d+)x": (
        "the layer takes {1} features in the last dimension and got {0}: change the size of the "
        "layer, or flatten or select the features of the batch"
    ),
    r"target dtype to be Long|scalar type Long|nll_loss\w* not implemented": _LABELS,
    r"same dtype|expected scalar type|should be the same|not implemented for '": _DTYPE,
    r"same device|expected device|is on \w+, (but|different from)": _DEVICE,
    r"index out of range in self": (
        "the indices of an embedding are 0 to num_embeddings - 1: enlarge it, or renumber them"
    ),
    r"input batch_size \(\d+\) to match target": (
        "predictions and labels need the same first size; for sequences flatten both, "
        "logits.flatten(0, 1) and targets.flatten()"
    ),
    r"[Tt]arget size .* input size|size of tensor a .* must match|shapes? .* broadcast": (
        "two shapes do not fit: compare them with the batch above; y.unsqueeze(1), "
        "prediction.squeeze(1) or reshape make them equal"
    ),
    r"Expected 3D .* 4D .* conv2d|expected 4D input": (
        "images are (batch, channels, height, width): x.unsqueeze(1) adds the channel"
    ),
    r"to have (\d+) channels, but got (\d+) channels": (
        "the layer takes {0} channels and got {1}; images are (batch, channels, height, width), "
        "and x.permute(0, 3, 1, 2) moves channels from the end"
    ),
    r"more than 1 value per channel": (
        "batch normalization needs several samples: functrain.data.Batches(..., drop_last=True), "
        "or another batch size"
    ),
    r"must be Tensor, not (tuple|list|dict)": _UNPACK,
    r"must be Tensor, not |'numpy.ndarray' object|'ndarray' object": (
        "make tensors of the batch: torch.as_tensor(x)"
    ),
    r"'(tuple|list|dict)' object has no attribute": _UNPACK,
    r"values to unpack": "unpack as many parts as the batch above has",
    r"missing \d+ required positional argument": (
        "functrain calls loss(model, batch) with the whole batch; a model is called with the "
        "arguments of its forward"
    ),
    r"Loss.__new__.* unexpected keyword argument '(\w+)'": (
        "metrics are in a dict: functrain.Loss(value, metrics={{'{0}': ...}})"
    ),
    r"leaf Variable that requires grad": (
        "do not write to parameters in a loss or a forward; the optimizer of the program does"
    ),
    r"between 0 and 1": (
        "this loss takes probabilities; binary_cross_entropy_with_logits takes what a linear layer "
        "returns"
    ),
    r"one of the following scalar types: Long": "indices are integers: x.long()",
    r"Can't call numpy\(\)": "metrics may stay tensors, or detach() them first",
    r"view size is not compatible": "use reshape instead of view, or contiguous() before it",
}
# Of errors of a backward, where the frames of the loss are gone.
_IN_BACKWARD = {
    r"through the graph a second time|does not require grad and does not": (
        "the loss returns a scalar and train_step differentiates it: leave out backward(), and "
        "detach() what is kept from one step to the next"
    ),
    r"modified by an inplace operation": (
        "something that backward needs was overwritten: replace x += y by x = x + y, and relu_ by "
        "relu"
    ),
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on the host or on a device.

    Example:
        >>> try:
        ...     torch.empty(2**60)
        ... except RuntimeError as error:
        ...     is_out_of_memory(error)
        True
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The allocator of the CPU has no class of error to itself.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)


def explain_out_of_memory(error: BaseException, step: int, parts: list[Batch]) -> None:
    """Add to an error of this kind what the step was given, and what would need less."""
    if not is_out_of_memory(error):
        return
    cut = f", the first of {len(parts)} micro-batches" if len(parts) > 1 else ""
    error.add_note(
        f"memory ran out in the step after step {step}, with the batch {_described(parts[0])} "
        f"({totals(parts[0])}{cut}). Smaller batches, a greater accumulate=, precision='bf16' or "
        "activation checkpointing need less; functrain.donated needs no second copy of the state."
    )


def explain_forward(error: BaseException, model: nn.Module, where: str, batch: Batch) -> None:
    """Add to an error of the model or the loss in which module it was, and what the batch was.

    An error that was not raised in the loss, or is functrain's own, is left alone.
    """
    if isinstance(error, FunctrainError) or is_out_of_memory(error):
        return
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(frame.f_code is evaluate.__code__ for frame in frames):
        place = _place(frames, model)
        error.add_note(f"in {place}, {where}, with the batch {_described(batch)}")
        remedy = _remedy(error, batch) or _found(_IN_BACKWARD, error)
    else:
        remedy = _found(_IN_BACKWARD, error)
    if remedy:
        error.add_note(remedy)


def _place(frames: list[FrameType], model: nn.Module) -> str:
    names = {id(module): name for name, module in model.named_modules()}
    inside = [one for frame in frames if id(one := frame.f_locals.get("self")) in names]
    if not inside:
        return "the loss"
    module: Any = inside[-1]
    name = names[id(module)]
    shown = type(module).__name__ if any(module.children()) else repr(module)
    return f"{name!r}, {shown}" if name else f"the model, {type(module).__name__}"


def _remedy(error: BaseException, batch: Batch) -> str:
    """Return what to do about an error, where its message is a common one."""
    kind = type(batch).__name__
    if "Loader" in kind or kind in ("Batches", "Mixture") or isinstance(batch, Iterator):
        return (
            f"a step takes one batch and got a {kind}: for batch in loader: state, metrics = "
            "program.train_step(state, batch); or functrain.fit(program, loader, until=...)"
        )
    if isinstance(error, KeyError) and isinstance(batch, Mapping) and error.args:
        names = [str(key) for key in batch]
        return f"the batch has the keys {names}{nearest(str(error.args[0]), names)}"
    return _found(_REMEDIES, error)


def _found(remedies: Mapping[str, str], error: BaseException) -> str:
    for pattern, remedy in remedies.items():
        if found := re.search(pattern, str(error)):
            return remedy.format(*found.groups()) if found.groups() else remedy
    return ""


def _described(batch: Batch) -> str:
    """Return kind, shape and, of integers on the host, the range of each tensor of a batch."""
    leaves = [
        f"{tree.path_string(path) or 'batch'}: {summary(leaf)}{_range(leaf)}"
        for path, leaf in tree.items(batch)
        if isinstance(leaf, Tensor)
    ]
    return f"{{{', '.join(leaves)}}}" if leaves else f"{type(batch).__name__} (without tensors)"


def _range(leaf: Tensor) -> str:
    whole = not (leaf.is_floating_point() or leaf.is_complex() or leaf.dtype is torch.bool)
    if not (whole and leaf.is_cpu and leaf.numel()):
        return ""
    return f" from {leaf.min()} to {leaf.max()}"
