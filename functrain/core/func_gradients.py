"""Gradients of one batch by ``torch.func``, for steps below its transformations."""

from __future__ import annotations

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.gradients import Forward, Gradients, GradientSink, emit
from functrain.core.loss import Outcome
from functrain.core.model import FunctionalModule
from functrain.core.state import Tensors


def by_func(
    model: FunctionalModule,
    forward: Forward,
    trainable: list[str],
    params: Tensors,
    buffers: Tensors,
    batch: Batch,
    scale: Tensor | None,
    sink: GradientSink | None = None,
) -> Gradients:
    """Gradients by ``torch.func.grad_and_value``; every trainable parameter has one (or zeros)."""
    leaves = {path: params[path] for path in trainable}
    frozen = {path: tensor for path, tensor in params.items() if path not in leaves}

    # Buffers are an argument, not captured: torch.func refuses to write to what is captured.
    def scaled_loss(
        leaves: Tensors, frozen: Tensors, buffers: Tensors, batch: Batch
    ) -> tuple[Tensor, tuple[Outcome, Tensors]]:
        with model.bound({**frozen, **leaves}, buffers, training=True) as module:
            outcome = forward(module, batch)
            after = model.held_buffers()
        loss = outcome.value if scale is None else outcome.value * scale
        # torch.func returns tensors only: an empty list stands for a weight that is taken from the
        # batch later.
        weight = [] if outcome.weight is None else [outcome.weight_of(batch)]
        return loss, (outcome._replace(weight=weight), after)  # type: ignore[arg-type]

    differentiated = torch.func.grad_and_value(scaled_loss, has_aux=True)
    grads, (_, (outcome, after)) = differentiated(leaves, frozen, buffers, batch)
    outcome = outcome._replace(weight=next(iter(outcome.weight), None))
    found = Gradients(grads, after, outcome)
    return found if sink is None else emit(found, batch, sink)
