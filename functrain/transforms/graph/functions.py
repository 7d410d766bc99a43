"""The functions that are captured as graphs: of the tensors of a tree, by name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from functrain import tree
from functrain.core.accumulation import step_gradients
from functrain.core.batch_lending import copied
from functrain.core.clipping import clipped
from functrain.core.gradients import GradientInputs, by_autograd
from functrain.core.loss import computed
from functrain.core.recipe import StaticParts
from functrain.core.state import Tensors
from functrain.errors import CaptureError, FunctrainError
from functrain.optim.update_counts import is_aligned
from functrain.transforms.graph.param_writes import WriteRecorder
from functrain.tree.nodes import copy

_RETURNED = (Tensor, bool, int, float, str, type(None))  # what a metric may consist of


class ObjectMetricsError(FunctrainError):
    """Metrics are objects of a class whose tensors are not known, so no graph returns them.

    Attributes:
        names: of the metrics.
    """

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"no graph returns the metrics {names}")
        self.names = names


class NewEntriesError(CaptureError):
    """An update adds entries to the optimizer's state, which a graph cannot; an eager one does.

    The optimizers give a parameter that is skipped a step count of its own, which a new state does
    not hold yet (``functrain.optim.update_counts``).
    """

    def __init__(self) -> None:
        super().__init__("the update adds entries to the optimizer's state", None)


def gradients_of_step(fixed: StaticParts, given: dict[str, Any]) -> dict[str, Any]:
    """Return clipped gradients of a step, and what goes with them.

    ``given`` has ``params``, ``buffers``, ``loss_scale`` and ``batches``.
    """
    recipe, writes = fixed.recipe, fixed.model.writes
    with WriteRecorder(given["params"], writes):
        found = step_gradients(by_autograd, fixed, given, given["batches"])
    _refuse_other_shapes(given["buffers"], found.buffers)
    bounds = recipe.clip_norm, recipe.clip_value
    grads, norm = clipped(found.grads, *bounds, foreach=False, norm=found.norm)
    loss, _, metrics = found.loss_output
    return {
        "grads": grads,
        "norm": norm,
        "buffers": found.buffers,
        "written": {path: found.params[path] for path in sorted(writes.paths)},
        "loss": loss,
        # A metric may be a part of the state, which a donated step writes over.
        "metrics": copy(computed(metrics, loss.device)),
    }


def gradients_of_part(inputs: GradientInputs, given: dict[str, Any]) -> dict[str, Any]:
    """Return the gradients of one of several micro-batches, and what goes with them.

    ``given`` has ``params``, ``buffers``, ``scale`` and ``batch``.

    Raises:
        ObjectMetricsError: no graph can return the metrics.
    """
    writes = inputs.fixed.model.writes
    with WriteRecorder(given["params"], writes):
        params = writes.owned(given["params"])
        found = by_autograd(
            inputs._replace(
                params=params,
                buffers=copy(given["buffers"]),
                batch=copied(given["batch"], None),
                scale=given["scale"],
            )
        )
    _refuse_other_shapes(given["buffers"], found.buffers)
    loss, weight, metrics = found.loss_output
    if names := [name for name, one in metrics.items() if not _is_tree(one)]:
        raise ObjectMetricsError(names)
    return {
        "grads": found.grads,
        "buffers": found.buffers,
        "written": {path: params[path] for path in sorted(writes.paths)},
        "loss": loss,
        "weight": weight,
        "metrics": copy(metrics),
    }


def update_by_rule(fixed: StaticParts, given: dict[str, Any]) -> dict[str, Any]:
    """Write the optimizer's update over ``params`` and ``optimizer``, by ``grads`` and ``lr``."""
    optimizer = fixed.recipe.optimizer
    names = ("grads", "optimizer", "params", "lr")
    params, state = optimizer.update(*(given[name] for name in names))
    old = {"params": given["params"], "optimizer": given["optimizer"]}
    write_over(old, {"params": params, "optimizer": state})
    return {}


def write_over(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Write the tensors of a later state over those of an earlier one.

    Raises:
        NewEntriesError: the optimizer's state has more entries than before.
    """
    if not is_aligned(old["optimizer"], new["optimizer"]):
        raise NewEntriesError
    for name, part in old.items():
        _write(part, new[name], f"state.{name}")


def _write(old: Any, new: Any, path: str) -> None:
    if old is new:
        return
    if isinstance(old, Tensor) and isinstance(new, Tensor):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise CaptureError(
                f"{path} is {list(old.shape)} {old.dtype} before the step and {list(new.shape)} "
                f"{new.dtype} after it; a graph needs them alike",
                None,
            )
        old.copy_(new)
    elif isinstance(old, dict) and isinstance(new, dict):
        for key, child in old.items():
            _write(child, new[key], f"{path}.{key}")
    elif tree.is_node(old) and type(old) is type(new):
        for (key, one), (_, other) in zip(tree.children(old), tree.children(new), strict=True):
            _write(one, other, f"{path}.{key}")
    elif old != new:
        raise CaptureError(f"{path} is {old!r} before the step and {new!r} after it", None)


def _refuse_other_shapes(before: Tensors, after: Tensors) -> None:
    """Refuse a forward that changes the shape of a buffer."""
    for path, buffer in after.items():
        old, new = list(before[path].shape), list(buffer.shape)
        if old != new:
            raise CaptureError(
                f"the forward changes the buffer {path!r} from {old} to {new}, and a graph needs "
                "them alike. If only the first step does so, as with observers of quantization, "
                "make that with the eager program and go on from its state",
                None,
            )


def _is_tree(metric: Any) -> bool:
    return all(isinstance(leaf, _RETURNED) for _, leaf in tree.items({"": metric}))
