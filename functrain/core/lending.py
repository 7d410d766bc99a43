"""A module lent with the weights of a state: a copy of the shell that holds other tensors."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn

from functrain.core.model import FunctionalModule
from functrain.core.state import Tensors


def lent(
    model: FunctionalModule,
    params: Tensors,
    buffers: Tensors,
    *,
    training: bool,
    differentiated: Collection[str] = (),
) -> nn.Module:
    """Return a module of its own that computes with some tensors.

    The shell itself would not do: a step of the same program, as that of a student with its own
    average as the teacher, binds the shell to other tensors while the module is lent.

    Args:
        model: the shell, which stays as it is.
        params: by path; not changed. Those that a forward writes to are copied.
        buffers: by path; the module has copies.
        training: the mode.
        differentiated: paths of parameters to copy, as leaves that require gradients.
    """
    given = model.writes.owned(params)
    for path in differentiated:
        given[path] = params[path].detach().clone().requires_grad_()
    tensors = {**given, **{path: buffer.clone() for path, buffer in buffers.items()}}
    if tensors.keys() != model.first_places.keys():  # a state of another program
        raise KeyError(min(tensors.keys() ^ model.first_places.keys()))
    # deepcopy takes the copy of an object from here, so that no tensor is copied.
    memo: dict[int, Any] = {}
    for path, (container, key) in model.places:
        held: Tensor = container[key]
        memo[id(held)] = tensors[path]
    module = copy.deepcopy(model.module, memo)
    for one, (_, in_training, in_evaluation) in zip(module.modules(), model.modes, strict=True):
        one.training = in_training if training else in_evaluation
    return module
