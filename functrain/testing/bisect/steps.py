"""Compare one step of two runs in the order in which a step happens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain import tree
from functrain.core.inspection import gradients
from functrain.core.program import Program
from functrain.own_steps.states import JointState
from functrain.testing.bisect.replay import Recorder
from functrain.tree import Difference

# The conclusion from the part of a step that has the first difference.
ENTERED = {
    "state before": "the runs stand at different states before it",
    "batch": "the data gave another batch",
    "lr": "the schedule gave another learning rate",
    "loss": "from the same state and batch: the forward pass, or the loss, differs",
    "metrics": "the loss is the same, a metric is not",
    "gradients": "the loss is the same: the backward pass differs",
    "optimizer": "the gradients are the same: clipping or the optimizer differs",
    "params": "gradients and moments are the same: the optimizer's update differs",
    "ema": "the weights are the same: the average differs",
    "buffers": "the weights are the same: the buffers that the forward pass writes differ",
    "scheduler": "only the state of the schedule differs",
    "loss_scale": "only the scale of the loss differs",
    "rng": "only the root seed differs",
    "programs": "the states of the programs in it, or the tree of a step of one's own, differ",
    "counters": "only the counters differ",
    "evaluation": "the step is the same, its evaluation is not",
    "end": "one run continues, the other does not",
    "records": "they are the same, so it was neither the program nor the data as they are now: an "
    "earlier version of either, the machine, or chance",
}


@attrs.frozen(eq=False)
class Parting:
    """The place where two runs diverge.

    Attributes:
        step: the first update that differs; its row in the log has this number.
        part: the part of the step: a key of ``functrain.testing.bisect.steps.ENTERED``.
        leaf: the dotted path of the first leaf that differs.
        detail: a description of the difference.
        differences: all differences in that part; the first has the index and the two values of
            the first element that differs, if the leaf is a tensor.
        records: differences in the run directories, in sentences.
        start: the step of the checkpoint from which both were repeated; 0 for the start.
    """

    step: int
    part: str
    leaf: str
    detail: str
    differences: tuple[Difference, ...] = ()
    records: tuple[str, ...] = ()
    start: int = 0

    @property
    def entered(self) -> str:
        """The conclusion about the cause."""
        return ENTERED[self.part]

    def __str__(self) -> str:
        repeated = f"repeated from {f'step {self.start}' if self.start else 'the start'}"
        text = f"the runs, {repeated}, part at step {self.step}, at the {self.part}: {self.entered}"
        if self.part == "records":
            text = f"the records of the runs part at step {self.step}; {repeated}, {self.entered}"
        lines = [f"first {self.leaf}: {self.detail}" if self.leaf else self.detail]
        lines += [_element(self.differences[0])] if self.differences else []
        count = len(self.differences)
        lines += [f"and {count - 1:,} more of {self.part}"] if count > 1 else []
        return "\n".join([text, *(f"  {line}" for line in lines if line), *self.records])


def compared(first: Recorder, second: Recorder, given: bool = False) -> Parting | None:
    """Return the first part of a step that differs, with its leaves.

    Compares only the inputs of a step that failed.
    """
    for part, look in _PARTS.items():
        if given and part not in _GIVEN:
            break
        ours, theirs = _plain(look(first)), _plain(look(second))
        found = tree.diff(ours, theirs)
        if found:
            return parting(first.step, part, found)
    return None


def parting(step: int, part: str, found: list[Difference]) -> Parting:
    """Build the result from the differences of two trees."""
    leaf = tree.path_string(found[0].path)
    return Parting(step, part, leaf, found[0].detail, tuple(found))


def _element(found: Difference) -> str:
    """Describe the first element that differs, if the difference is that of two tensors."""
    if found.index is None:
        return ""
    return f"element {list(found.index)} is {found.first!r} and {found.second!r}"


def _gradients(side: Recorder) -> Any:
    if side.before is None or not isinstance(side.program, Program):
        return None
    return gradients(side.program, side.before, side.batch)


def _own(side: Recorder) -> Any:
    """Return the parts of a state of a step of one's own."""
    if isinstance(side.after, JointState):
        return side.after.states
    return {"tree": getattr(side.after, "tree", None)}


def _after(name: str) -> Callable[[Recorder], Any]:
    return lambda side: {name: getattr(side.after, name, None)}


def _measured(*names: str) -> Callable[[Recorder], Any]:
    """Return some metrics of the step; the rates of parameter groups are ``lr.NAME``."""
    return lambda side: {
        name: value for name, value in side.metrics.items() if name.split(".")[0] in names
    }


_GIVEN = ("state before", "batch")
# In the order of the step; gradients are computed again only if nothing before differs.
_PARTS: dict[str, Callable[[Recorder], Any]] = {
    "state before": lambda side: {"state": side.before},
    "batch": lambda side: {"batch": side.batch},
    "lr": _measured("lr"),
    "loss": _measured("loss"),
    "gradients": lambda side: {"gradients": _gradients(side)},
    **{
        name: _after(name)
        for name in ("optimizer", "params", "ema", "buffers", "scheduler", "loss_scale", "rng")
    },
    "programs": _own,
    "counters": _after("counters"),
    "metrics": lambda side: dict(side.metrics),
}


def _plain(value: Any) -> Any:
    """Convert arrays to tensors and objects to their fields, so that everything is comparable."""
    if isinstance(value, Tensor):
        return value if value.layout is torch.strided else value.to_dense()
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if tree.is_node(value):
        return tree.rebuild(value, [_plain(child) for _, child in tree.children(value)])
    if type(value).__module__ == "numpy":
        return _array(value)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    return {key: _plain(child) for key, child in vars(value).items()} if _has_fields(value) else ""


def _has_fields(value: Any) -> bool:
    return hasattr(value, "__dict__") and not callable(value)


def _array(value: Any) -> Any:
    try:
        return torch.as_tensor(value)
    except TypeError:  # of strings or objects
        return repr(value.tolist())
