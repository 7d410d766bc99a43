"""The device part of a step as one compiled graph."""

from __future__ import annotations

import types
from typing import Any

import attrs
import torch

from functrain import step
from functrain.batch import Batch
from functrain.errors import ConfigurationError
from functrain.optim import FromTorch
from functrain.optim.inside import inside
from functrain.program import Program


def compiled(program: Program, **options: Any) -> Program:
    """A program whose device part runs under ``torch.compile(fullgraph=True)``.

    Forward, backward, clipping, the finite check, the optimizer's rule and the average are one
    graph over plain dicts. Learning rates enter as tensors, so the graph is compiled once; a batch
    of another shape compiles another. Random numbers drawn inside (dropout) differ from those of
    the eager program, so a run is resumed with the transformation it was started with. A trained
    parameter that the loss does not reach has a gradient of zeros here, and decays; eager steps
    leave it alone.

    Args:
        program: any program; its device part is replaced.
        options: passed on to ``torch.compile`` (``mode``, ``dynamic``, ``backend``, ...).

    Returns:
        The compiled program.

    Raises:
        ConfigurationError: the optimizer is, or has in it, one of ``from_torch``, whose class runs
            as ordinary Python.
    """
    if any(isinstance(one, FromTorch) for one in inside(program.recipe.optimizer)):
        raise ConfigurationError(
            "compiled cannot take an optimizer of from_torch into its graph; use the one of "
            "functrain.optim that is the same, or leave the program eager"
        )
    graph = torch.compile(
        _functional(program.fixed), **{"fullgraph": True, "dynamic": False, **options}
    )

    def device_step(
        state: step.DeviceState, batches: list[Batch], lr: Any, ema_due: bool
    ) -> tuple[step.DeviceState, step.Outputs]:
        device = next(iter(state["params"].values())).device
        return graph(state, batches, _as_tensors(lr, device), ema_due)

    return attrs.evolve(program, device_step=device_step, donates=False)


def _functional(fixed: step.Fixed) -> step.DeviceStep:
    """The functional device step of a program, as a function with a code object of its own.

    torch bounds compilations (to 8) by code object: if programs shared one, the ninth of a process
    could not be compiled.
    """

    def functional(
        state: step.DeviceState, batches: list[Batch], lr: Any, ema_due: bool
    ) -> tuple[step.DeviceState, step.Outputs]:
        return step.functional(fixed, state, batches, lr, ema_due)

    code = functional.__code__.replace()
    return types.FunctionType(code, globals(), "functional", None, functional.__closure__)


def _as_tensors(lr: Any, device: torch.device) -> Any:
    """Rates as scalars on the device: a Python float would be a constant of the graph."""
    if isinstance(lr, dict):
        return {name: _as_tensors(rate, device) for name, rate in lr.items()}
    return torch.tensor(lr, dtype=torch.float32, device=device)
