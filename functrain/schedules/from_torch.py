"""Make a pure schedule of any learning rate scheduler of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrain.errors import ConfigurationError
from functrain.schedules.fields import plain_float
from functrain.schedules.torch_schedule import TorchSchedule


def from_torch(
    factory: Callable[..., Any], *, lr: float | None = None, **kwargs: Any
) -> TorchSchedule:
    """Return a torch scheduler as a pure schedule with the same sequence of learning rates.

    Args:
        factory: a class of `torch.optim.lr_scheduler`, another class with the same methods, or a
            function that takes an optimizer and returns a scheduler.
        lr: the optimizer's learning rate. Schedulers inside another one may leave it out.
            OneCycleLR and CyclicLR set their own, and do not read this one.
        kwargs: the scheduler's arguments, without the optimizer. Where torch wants schedulers,
            give what this function returns.

    Returns:
        A schedule; see TorchSchedule for what it costs and keeps.

    Raises:
        ConfigurationError: schedulers inside this one have other learning rates, or it sets
            another hyperparameter of the optimizer too, as OneCycleLR does with the momentum.

    Example:
        >>> from torch.optim.lr_scheduler import LinearLR, SequentialLR, StepLR
        >>> schedule = from_torch(
        ...     SequentialLR,
        ...     lr=1.0,
        ...     schedulers=[
        ...         from_torch(LinearLR, start_factor=0.5, total_iters=2),
        ...         from_torch(StepLR, step_size=1, gamma=0.1),
        ...     ],
        ...     milestones=[2],
        ... )
        >>> [round(schedule(step), 3) for step in range(5)]
        [0.5, 0.75, 1.0, 0.1, 0.01]
    """
    if not callable(factory) or (hasattr(factory, "get_last_lr") and not isinstance(factory, type)):
        raise ConfigurationError(
            "from_torch: give the class and its arguments without the optimizer, as in "
            f"from_torch(StepLR, lr=0.1, step_size=30); got {factory!r}"
        )
    if "optimizer" in kwargs:
        raise ConfigurationError(
            "from_torch: leave the optimizer out; functrain's takes the schedule as its lr"
        )
    schedule = TorchSchedule(factory, _common_lr(factory, lr, kwargs), kwargs)
    if schedule.base is not None:
        _refuse_other_hyperparameters(schedule)
    return schedule


def _refuse_other_hyperparameters(schedule: TorchSchedule) -> None:
    """Refuse a scheduler that also sets other hyperparameters; torch checks its arguments here."""
    moved = schedule.init()["group"].keys() & schedule.optimizer().defaults.keys()
    if moved:
        hint = "give it cycle_momentum=False, " if "momentum" in moved else ""
        names = ", ".join(sorted(moved))
        raise ConfigurationError(
            f"{schedule.name} also sets {names} of the optimizer, and functrain's schedules give "
            "the learning rate alone: the optimizer would train with the value that it was made "
            f"with, unlike torch. To train so, {hint}or choose another scheduler"
        )


def _common_lr(factory: Any, lr: float | None, kwargs: dict[str, Any]) -> float | None:
    """Return `lr`, or the one learning rate of the schedulers among the arguments."""
    values = [
        item for v in kwargs.values() for item in (v if isinstance(v, (list, tuple)) else [v])
    ]
    inner = {v.base for v in values if isinstance(v, TorchSchedule) and v.base is not None}
    rates = inner if lr is None else inner | {plain_float(lr)}
    if len(rates) > 1:
        raise ConfigurationError(
            f"{getattr(factory, '__name__', factory)}: its schedulers share one optimizer and so "
            f"one lr, got {sorted(map(repr, rates))}. Give it once, to the outermost from_torch"
        )
    return next(iter(rates), None)
