"""Several steps in one call."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.batch_splitting import MicroBatches
from functrain.core.first_step import require_state
from functrain.core.loss import Metrics
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.errors import ConfigurationError


def steps(program: AnyProgram, state: Any, batches: Iterable[Batch]) -> tuple[Any, Metrics]:
    """Make a step for each of several batches.

    State and metrics are those of as many calls of ``train_step``, bit for bit. The steps after the
    first reuse the memory of the state before.

    Args:
        program: any program, compiled or not.
        state: where training stands; not changed (a donated program consumes it).
        batches: one for each step, as ``train_step`` takes them.

    Returns:
        (last state, metrics). Each metric has one value a step, NaN where a step did not
        report it, as for a batch without samples.

    Raises:
        ConfigurationError: ``batches`` is one batch, or a tuple of tensors, which may be one.
        NonFiniteError: as ``train_step``. A donated state is then lost.

    Example:
        >>> import functrain as ft, torch
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> state, metrics = ft.steps(program, program.init(), [torch.ones(4, 2)] * 3)
        >>> state.counters.step, metrics["loss"].shape
        (3, torch.Size([3]))
    """
    if isinstance(program, Program):
        require_state(state, batches)
    else:
        program.require(state, batches)
    batches = series(batches)
    device, rows = state.device, list[Metrics]()
    # Nobody else has the states that these steps make.
    following = attrs.evolve(program, donates=True) if isinstance(program, Program) else program
    for batch in batches:
        state, metrics = (following if rows else program).train_step(state, batch)
        rows.append(metrics)
    return state, stacked(rows, device)


def series(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Return several batches, and refuse a single one."""
    one = isinstance(batches, Tensor | Mapping | MicroBatches | str)
    if one or not isinstance(batches, Iterable):
        raise ConfigurationError(
            "batches: expected a list or another iterable of batches, got a "
            f"{type(batches).__name__}. Cut a tensor of stacked batches by list(batches.unbind())"
        )
    if type(batches) is tuple and batches and all(isinstance(one, Tensor) for one in batches):
        raise ConfigurationError(
            "batches: a tuple of tensors may be one batch or several: give [(x, y)] if it is one "
            "batch, list(batches) if each tensor is one"
        )
    return batches


def stacked(rows: list[Metrics], device: torch.device) -> Metrics:
    """Return each metric of several steps as one tensor, NaN where a step did not report it."""
    if not rows:
        empty = torch.zeros(0, device=device)
        return {"loss": empty, "lr": torch.zeros(0, dtype=torch.float64), "grad_norm": empty}
    names = {name: None for row in rows for name in row}  # in order
    return {name: _column([row.get(name) for row in rows]) for name in names}


def _column(values: list[Tensor | None]) -> Tensor:
    nothing = torch.tensor(math.nan)
    # A batch without samples has its NaN on the host.
    device = next((one.device for one in values if one is not None and not one.is_cpu), None)
    return torch.stack([(nothing if one is None else one).to(device) for one in values])
