"""Check that a loss is a function of the module's tensors and the batch."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from functrain.core.loss import LossFunction, evaluate
from functrain.core.rng import scoped
from functrain.testing.module_attributes import (
    ModuleAttributes,
    try_other_batches,
    unchanged,
    without,
)
from functrain.testing.observed_calls import refuse, repeat_twice, watch_call

_SEED = 7


def check_loss(loss: LossFunction, module: nn.Module, batch: Any) -> None:
    """Check that a loss, its metrics and its gradients depend on module and batch alone.

    The loss is called three times on copies of the module, in training mode and with the same
    random stream, as in a step, and in between on every second sample. It may write to buffers,
    which are part of the state, fill attributes with values independent of earlier calls, and draw
    from the global generators of torch, ``random`` and NumPy, but not from other generators. It
    must not write to the batch, to parameters or ``.grad``, nor to other attributes.

    Args:
        loss: ``loss(model, batch)``, as for ``functrain.program``.
        module: the module to call it with.
        batch: a batch on the module's device.

    Raises:
        ImpurityError: with one line per finding.
        LossError: it returns neither a scalar tensor nor a :class:`functrain.Loss`.

    Example:
        >>> check_loss(lambda model, x: model(x.mul_(2)).mean(), nn.Linear(2, 1), torch.ones(1, 2))
        Traceback (most recent call last):
        functrain.errors.ImpurityError: the loss is not pure:
          batch was changed: 2 of 2 elements, first at [0, 0]: 1.0 became 2.0 (8388608 ulps)
    """
    spares = [(copy.deepcopy(module), copy.deepcopy(batch)) for _ in range(2)]
    inner = copy.deepcopy(module)
    inner.train()
    watched, attributes = {"module": inner, "batch": batch}, ModuleAttributes.of(inner)
    first = watch_call(lambda: _called(loss, inner, batch), watched, _is_buffer(inner))
    alike = _alike(loss, module, batch, attributes.changed())
    once, twice = (functools.partial(_called, loss, *spare) for spare in spares)
    refuse("the loss", without(first.findings, alike) + repeat_twice(first, once, twice))


def _alike(loss: LossFunction, module: nn.Module, batch: Any, filled: Any) -> set[str]:
    """Return the attributes that get the same values after another call as after none."""
    other = copy.deepcopy(module)
    attributes = ModuleAttributes.of(other)
    if not try_other_batches(lambda made: _called(loss, other, made, _SEED + 1), batch, attributes):
        return set()
    _put_values(other, module)
    _called(loss, other, copy.deepcopy(batch))
    return unchanged(attributes, filled)


@torch.no_grad()
def _put_values(module: nn.Module, source: nn.Module) -> None:
    """Copy parameters and buffers to another module, even if calls have changed their shapes."""
    for param, given in zip(module.parameters(), source.parameters(), strict=True):
        param.copy_(given)
    buffers = dict(module.named_buffers())
    for path, buffer in source.named_buffers():
        held = buffers.get(path)
        if held is not None and (held.shape, held.dtype) == (buffer.shape, buffer.dtype):
            held.copy_(buffer)  # in place, because a buffer may have several names
        else:
            owner, _, name = path.rpartition(".")
            module.get_submodule(owner)._buffers[name] = buffer.clone()


def _called(loss: LossFunction, module: nn.Module, batch: Any, seed: int = _SEED) -> dict[str, Any]:
    module.train()
    params = {path: p for path, p in module.named_parameters() if p.requires_grad}
    device = next(iter([*params.values(), *module.buffers()]), torch.empty(0)).device
    with scoped(seed, device), torch.enable_grad():
        loss_output = evaluate(loss, module, batch, device)
        grads = _gradients(loss_output.value, list(params.values()))
    return {
        "loss": loss_output.value,
        "weight": loss_output.weight,
        "metrics": loss_output.metrics,
        "gradients": dict(zip(params, grads, strict=True)),
        "buffers": dict(module.named_buffers()),
    }


def _gradients(value: Tensor, params: list[Tensor]) -> list[Tensor | None]:
    if not value.requires_grad:
        return [None] * len(params)
    return list(torch.autograd.grad(value, params, allow_unused=True))


def _is_buffer(module: nn.Module) -> Callable[[str], bool]:
    buffers = {f"module.{path}" for path, _ in module.named_buffers(remove_duplicate=False)}
    return buffers.__contains__
