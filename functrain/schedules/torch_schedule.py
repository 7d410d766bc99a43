"""Any learning rate scheduler of torch as a pure schedule: ``from_torch``."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import attrs
import torch

from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors import ConfigurationError, MissingMetricWarning, ScheduleStateError
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.validators import number, optional
from functrain.schedules.fields import plain_float
from functrain.schedules.plain_state import from_plain, to_plain

TORCH_STATE = frozenset({"lr", "group", "scheduler"})
"""Keys of a TorchSchedule's state; what is below them, the scheduler alone knows."""


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
        told = "leave the optimizer out; functrain's takes the schedule as its lr"
        raise ConfigurationError(f"from_torch: {told}")
    schedule = TorchSchedule(factory, _common_lr(factory, lr, kwargs), kwargs)
    if schedule.base is not None:
        _refuse_other_hyperparameters(schedule)
    return schedule


@explained
@attrs.frozen(repr=False)
class TorchSchedule(Schedule):
    """A torch scheduler whose numbers live in the state; `from_torch` makes it.

    The state is {"lr": the present lr, "group": what the scheduler wrote into the optimizer's
    parameter group, "scheduler": its `state_dict()`}, all plain values. Each `advance` builds
    the scheduler around an optimizer of one unused parameter, loads the numbers, and steps it
    once, so nothing mutable outlives a call (tens of microseconds). A scheduler whose `step`
    wants a metric, as ReduceLROnPlateau's, moves at `observe` instead. Calling the schedule with
    a step replays it from the start.

    Args:
        factory: called with an optimizer and `kwargs`, returns a scheduler.
        lr: the optimizer's learning rate; None only inside another TorchSchedule.
        kwargs: the scheduler's arguments.
    """

    factory: Callable[..., Any]
    base: float | None = attrs.field(
        alias="lr",
        converter=attrs.converters.optional(plain_float),
        validator=optional(number(minimum=0)),
    )
    kwargs: dict[str, Any] = attrs.field(factory=dict, converter=dict, hash=False)

    def __call__(self, step: int) -> float:
        """Return the lr of update number `step`, by replaying all updates before it."""
        if self.observes is not None:
            raise ScheduleStateError(
                f"{self.name}'s lr depends on the metrics it has observed, not on the step: "
                "use schedule.lr(state, step) with the state that observe returned"
            )
        return self.lr(self.advanced(self.init(), step), step)

    @property
    def observes(self) -> Observed:
        """Return that it observes evaluations, if the scheduler's `step` takes a metric."""
        kind: Any = self.factory
        if not isinstance(kind, type):
            kind = type(self._build(self.optimizer()))
        return "evaluation" if _wants_metric(kind) else None

    @property
    def tells_ahead(self) -> bool:
        """Return false: the state of a torch scheduler has only its present lr."""
        return False

    @property
    def needs_mode(self) -> bool:
        """Return whether the scheduler has the mode "min" without an argument that says so."""
        if self.base is None or self.observes != "evaluation":
            return False
        factory, written = self.factory, dict(self.kwargs)
        while isinstance(factory, functools.partial):
            written |= factory.keywords
            factory = factory.func
        return "mode" not in written and self.init()["scheduler"].get("mode") == "min"

    def init(self) -> ScheduleState:
        """Return the state of the newly made scheduler."""
        optimizer = self.optimizer()
        return _snapshot(optimizer, self._build(optimizer))

    def lr(self, state: ScheduleState, step: int) -> float:
        """Return the present lr; the state, not the step, says where the schedule is."""
        lr: float = state["lr"]
        return lr

    def advance(self, state: ScheduleState) -> ScheduleState:
        """Return the state after one `scheduler.step()`."""
        return self.advanced(state, 1)

    def advanced(self, state: ScheduleState, count: int) -> ScheduleState:
        """Return the state after so many calls of `scheduler.step()`, of one scheduler."""
        if self.observes is not None:
            return state
        optimizer, scheduler = self._restore(state)
        for _ in range(count):
            scheduler.step()
        return _snapshot(optimizer, scheduler)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after one `scheduler.step(metric)`, where the scheduler takes one."""
        if self.observes is None:
            return state
        if metric is None:
            told = f"{self.name} was shown no metric at this evaluation; its lr stays as it is"
            warn(told, MissingMetricWarning)
            return state
        optimizer, scheduler = self._restore(state)
        scheduler.step(float(metric))
        return _snapshot(optimizer, scheduler)

    @property
    def name(self) -> str:
        """The name of the scheduler's class."""
        return getattr(self.factory, "__name__", repr(self.factory))

    def optimizer(self) -> torch.optim.SGD:
        """Return an optimizer of one unused parameter, for the scheduler to write to."""
        if self.base is None:
            raise ConfigurationError(
                f"{self.name}: lr is missing; only schedulers inside another may leave it out. "
                f"Give from_torch({self.name}, lr=...)"
            )
        optimizer = torch.optim.SGD([torch.zeros((), device="cpu")], lr=self.base)
        # By this flag torch's schedulers tell whether they are stepped before their optimizer,
        # and warn. This one is never stepped at all.
        optimizer._opt_called = True  # type: ignore[attr-defined]
        return optimizer

    def _build(self, optimizer: torch.optim.Optimizer) -> Any:
        kwargs = {name: _built(value, optimizer) for name, value in self.kwargs.items()}
        if "optimizer" in inspect.signature(self.factory).parameters:
            return self.factory(optimizer=optimizer, **kwargs)
        return self.factory(optimizer, **kwargs)

    def _restore(self, state: ScheduleState) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = self.optimizer()
        scheduler = self._build(optimizer)
        scheduler.load_state_dict(from_plain(state["scheduler"]))
        optimizer.param_groups[0].update(from_plain(state["group"]), lr=state["lr"])
        return optimizer, scheduler


def _built(value: Any, optimizer: torch.optim.Optimizer) -> Any:
    """Return a scheduler for a schedule; anything else is copied, for torch may write into it."""
    if isinstance(value, TorchSchedule):
        return value._build(optimizer)
    if isinstance(value, (list, tuple)):
        return [_built(item, optimizer) for item in value]
    return copy.deepcopy(value)


def _snapshot(optimizer: torch.optim.Optimizer, scheduler: Any) -> ScheduleState:
    group, unchanged = optimizer.param_groups[0], optimizer.defaults.items()
    written = {
        key: value
        for key, value in group.items()
        if key not in ("params", "lr") and (key, value) not in unchanged
    }
    return {
        "lr": float(group["lr"]),
        "group": to_plain(written, "param_group"),
        "scheduler": to_plain(scheduler.state_dict()),
    }


@functools.cache
def _wants_metric(kind: Any) -> bool:
    """Return whether the `step` of a class of schedulers has to be given a metric."""
    parameters = list(inspect.signature(kind.step).parameters.values())[1:]
    return any(parameter.default is parameter.empty for parameter in parameters)


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
    rates = set() if lr is None else {plain_float(lr)}
    for value in kwargs.values():
        for inner in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(inner, TorchSchedule) and inner.base is not None:
                rates.add(inner.base)
    if len(rates) > 1:
        raise ConfigurationError(
            f"{getattr(factory, '__name__', factory)}: its schedulers share one optimizer and so "
            f"one lr, got {sorted(map(repr, rates))}. Give it once, to the outermost from_torch"
        )
    return next(iter(rates), None)
