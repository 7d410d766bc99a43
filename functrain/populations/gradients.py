"""Gradients of one member, below ``vmap``."""

from __future__ import annotations

from typing import Any

import torch

from functrain.core.gradients import GradientInputs, Gradients, require_dependence, scaled
from functrain.core.loss import LossOutput, evaluate
from functrain.core.model import FunctionalModule
from functrain.core.state import Tensors
from functrain.errors import UnsupportedError
from functrain.populations.draws import refuse_other_generators
from functrain.populations.formulas import mappable
from functrain.transforms.graph.inputs import flatten, with_tensors
from functrain.transforms.torch_internals import GradLevel, grad_level

HOOKS = "torch.func does not support hooks on saved tensors"


def of_member(given: GradientInputs) -> Gradients:
    """Return the gradients; as by autograd, none of a parameter that the loss does not depend on.

    Of such a parameter ``torch.func.grad`` returns zeros, and optimizers would decay it.
    """
    recipe, model, trainable = given.fixed.recipe, given.fixed.model, given.fixed.trainable
    with grad_level() as level, torch.enable_grad():
        params, buffers, batch = _wrap(level, [given.params, given.buffers, given.batch])
        leaves = {path: params[path] for path in trainable}
        for leaf in leaves.values():
            level.require_grad(leaf)
        versions = {path: param._version for path, param in params.items()}
        with (
            # They would recompute parts in the backward pass, outside of vmap.
            torch.autograd.graph.disable_saved_tensors_hooks(HOOKS),
            refuse_other_generators(),
            mappable(),
            model.bound(params, buffers, training=True) as module,
        ):
            loss_output = evaluate(recipe.loss, module, batch, given.device, recipe.precision)
            after = model.current_buffers(buffers)
            _refuse_writes(model, params, versions)
        weight = None if loss_output.weight is None else loss_output.weight_of(batch)
        require_dependence(loss_output.value.requires_grad)
        loss = scaled(loss_output.value, given.scale)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        grads = {path: g for path, g in zip(leaves, found, strict=True) if g is not None}
        result = [grads, after, loss_output.value.detach(), weight, loss_output.metrics]
        grads, after, value, weight, metrics = _unwrap(level, result)
    return Gradients(grads, given.params, after, LossOutput(value, weight, metrics))


def _wrap(level: GradLevel, tree: Any) -> Any:
    return with_tensors(tree, iter(level.wrap(flatten(tree))))


def _unwrap(level: GradLevel, tree: Any) -> Any:
    return with_tensors(tree, iter(level.unwrap(flatten(tree))))


def _refuse_writes(model: FunctionalModule, params: Tensors, versions: dict[str, int]) -> None:
    """Refuse a forward that writes to parameters: torch.func would lose it."""
    for path, now in model.current_params().items():
        if now is not params[path] or now._version != versions[path]:
            raise UnsupportedError(
                f"the forward pass writes to parameter {path!r}, which a population cannot follow. "
                "Make it a buffer, or train the members one by one, pop.programs[i]"
            )
