"""The learning rates of members, on the host: plain numbers from plain numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from functrain.core import learning_rate
from functrain.core.program import Program
from functrain.core.schedule import Mode, Schedule
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError


def of_members(
    programs: list[Program], state: TrainState, zero_rate: str
) -> list[learning_rate.Rate]:
    """Return the rate of each member's next update; by group where there are groups."""
    scheduler, number = state.scheduler, state.counters.step
    return [
        learning_rate.rate_of_step(program.schedules, scheduler[str(index)], number, zero_rate)
        for index, program in enumerate(programs)
    ]


def stacked(rates: list[learning_rate.Rate]) -> Any:
    """Return rates as float64 tensors ``[members]`` on the host, by group."""
    if isinstance(rates[0], dict):
        return {name: stacked([one[name] for one in rates]) for name in rates[0]}
    return torch.tensor(rates, dtype=torch.float64)


def advanced(programs: list[Program], scheduler: dict[str, Any], loss: Tensor) -> dict[str, Any]:
    """Return the scheduler state of all members after an update.

    The loss is read only where a schedule observes it, since reading waits for the device.
    """
    changed = {
        str(index): learning_rate.advance(program.schedules, scheduler[str(index)], loss[index])
        for index, program in enumerate(programs)
        if not _is_stateless(program.schedules)
    }
    return {**scheduler, **changed} if changed else scheduler


def observed(
    programs: list[Program],
    scheduler: dict[str, Any],
    running: list[int],
    metric: Any,
    mode: Mode | None,
) -> dict[str, Any]:
    """Return the scheduler state of all members after an evaluation."""
    if not isinstance(metric, list | tuple | None):
        metric = torch.as_tensor(metric).tolist()
    numbers = [None] * len(programs) if metric is None else metric
    if not isinstance(numbers, list | tuple) or len(numbers) != len(programs):
        raise ConfigurationError(
            f"observe: expected a metric of each of the {len(programs)} members, as "
            f'pop.eval_step(state, batch)["loss"], got {metric!r}'
        )
    changed = {
        str(index): learning_rate.observe(
            programs[index].schedules, scheduler[str(index)], numbers[index], mode
        )
        for index in running
    }
    return {**scheduler, **changed}


def _is_stateless(schedules: learning_rate.Schedules) -> bool:
    """Return whether an update leaves the state of a schedule as it is."""
    if isinstance(schedules, dict):
        return all(map(_is_stateless, schedules.values()))
    return type(schedules).advance is Schedule.advance and schedules.observes != "step"
