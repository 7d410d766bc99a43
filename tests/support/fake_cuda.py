"""Steps on a CUDA device that is not there.

Torch's fake tensors have shapes, dtypes and devices, and no values. Code that reads a value of one
fails, where on a device it would wait; and operations on tensors of several devices fail as there.
A build of torch without CUDA has no gradients of such tensors, so steps are given theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import functrain as ft
from functrain import tree
from functrain.core import rng, step
from functrain.core.gradients import Gradients
from functrain.core.loss import LossOutput

CUDA = torch.device("cuda", 0)
_QUERIES = ("aten.is_pinned.default", "prim.device.default")


class _Unguarded(TorchFunctionMode):
    """Replace the operations that ask for the device itself by others with the same result."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.copy_:
            torch._foreach_copy_([args[0]], [args[1]])
            return args[0]
        if function is Tensor.__invert__:
            return args[0].bitwise_not()
        if function is Tensor.__getitem__ and isinstance(args[1], slice):
            start, stop, _ = args[1].indices(len(args[0]))
            return args[0].narrow(0, start, stop - start)
        return function(*args, **(kwargs or {}))


class OnCuda(TorchDispatchMode):
    """Note the operations with a tensor on the host, of which a step should have none.

    Attributes:
        hosts: their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hosts: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        fused = "_fused_" in str(function)  # not all of them are known for fake tensors
        found = None if fused else function(*args, **kwargs)
        leaves = tree_leaves((args, kwargs, found))
        hosts = any(isinstance(leaf, Tensor) and leaf.device != CUDA for leaf in leaves)
        if hosts and str(function) not in _QUERIES:
            self.hosts.append(str(function))
        return found


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnCuda]:
    """Run the body with fake tensors; tensors made before must not be used in it."""
    monkeypatch.setattr(rng, "device_generator", lambda device: None)
    with FakeTensorMode(), _Unguarded(), OnCuda() as noted:
        yield noted


def on_cuda(value: Any) -> Any:
    """Return a tree like another one, with its tensors on the device."""
    return tree.map(lambda leaf: _alike(leaf) if isinstance(leaf, Tensor) else leaf, value)


def with_gradients(program: ft.Program) -> ft.Program:
    """Return an eager program whose steps are given gradients, and do everything else."""

    def gradients(fixed: Any, state: dict[str, Any], batches: Any, seed: int | None) -> Gradients:
        params, paths = dict(state["params"]), fixed.trainable
        grads = {path: torch.empty_like(params[path]) for path in paths}
        buffers = {path: buffer.clone() for path, buffer in state["buffers"].items()}
        loss = torch.empty((), device=CUDA)
        return Gradients(grads, params, buffers, LossOutput(loss, None, {"m": loss.clone()}))

    kernels = step.EAGER._replace(gradients=gradients)
    device_step = step.DeviceStep(kernels, program.fixed)
    return attrs.evolve(program, device_step=device_step)


def _alike(tensor: Tensor) -> Tensor:
    shape, stride = tensor.shape, tensor.stride()
    return torch.empty_strided(shape, stride, dtype=tensor.dtype, device=CUDA)
