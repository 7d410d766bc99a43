"""A learning rate scheduler of torch whose numbers live in the state of a schedule."""

from __future__ import annotations

import copy
import functools
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

import attrs
import torch

from functrain.core.schedule import Observed, Schedule, ScheduleState
from functrain.errors import ConfigurationError, MissingMetricWarning, ScheduleStateError
from functrain.errors.base import warn
from functrain.errors.calls import explained
from functrain.errors.validators import number, optional
from functrain.schedules.fields import plain_float

TORCH_STATE = frozenset({"lr", "group", "scheduler"})
"""Keys of a TorchSchedule's state; what is below them, the scheduler alone knows."""


@explained
@attrs.frozen(repr=False)
class TorchSchedule(Schedule):
    """A torch scheduler whose numbers live in the state; `from_torch` makes it.

    The state is {"lr": the present lr, "group": what the scheduler wrote into the optimizer's
    parameter group, "scheduler": its `state_dict()`}, all plain values. Each `advance` builds
    the scheduler around an optimizer of one unused parameter, loads the numbers, and steps it
    once, so nothing mutable outlives a call (tens of microseconds). `lr` reads the state and
    ignores the step. Calling the schedule with a step replays it from the start, which takes
    that many advances.

    A scheduler whose `step` wants a metric, as ReduceLROnPlateau's, moves at `observe`, any
    other one at `advance`.

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
        if _wants_metric(self._build(self.optimizer())):
            raise ScheduleStateError(
                f"{self.name}'s lr depends on the metrics it has observed, not on the step: "
                "use schedule.lr(state, step) with the state that observe returned"
            )
        return self.lr(self.advanced(self.init(), step), step)

    @property
    def observes(self) -> Observed:
        """Return that it observes evaluations, if the scheduler's `step` takes a metric."""
        if isinstance(self.factory, type):
            return "evaluation" if _class_wants_metric(self.factory) else None
        return "evaluation" if _wants_metric(self._build(self.optimizer())) else None

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
        """Return the state after so many calls of `scheduler.step()`.

        Args:
            state: the schedule's state.
            count: how many; the scheduler is built once for all.
        """
        optimizer, scheduler = self._restore(state)
        if _wants_metric(scheduler):
            return state
        for _ in range(count):
            scheduler.step()
        return _snapshot(optimizer, scheduler)

    def observe(self, state: ScheduleState, metric: float | None) -> ScheduleState:
        """Return the state after one `scheduler.step(metric)`, where the scheduler takes one.

        Warns:
            MissingMetricWarning: the scheduler takes a metric, and it is None.
        """
        optimizer, scheduler = self._restore(state)
        if not _wants_metric(scheduler):
            return state
        if metric is None:
            notice = f"{self.name} was shown no metric at this evaluation; its lr stays as it is"
            warn(notice, MissingMetricWarning)
            return state
        scheduler.step(float(metric))
        return _snapshot(optimizer, scheduler)

    @property
    def name(self) -> str:
        """The name of the scheduler's class."""
        return getattr(self.factory, "__name__", repr(self.factory))

    def optimizer(self) -> torch.optim.SGD:
        """Return an optimizer of one unused parameter, for the scheduler to write to.

        Raises:
            ConfigurationError: there is no learning rate.
        """
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
    """Return a scheduler for a schedule, and a copy of anything else: torch may write into it."""
    if isinstance(value, TorchSchedule):
        return value._build(optimizer)
    if isinstance(value, (list, tuple)):
        return [_built(item, optimizer) for item in value]
    return copy.deepcopy(value)


def _snapshot(optimizer: torch.optim.Optimizer, scheduler: Any) -> ScheduleState:
    group = optimizer.param_groups[0]
    defaults = optimizer.defaults
    written = {
        key: value
        for key, value in group.items()
        if key not in ("params", "lr") and (key not in defaults or value != defaults[key])
    }
    return {
        "lr": float(group["lr"]),
        "group": to_plain(written, "param_group"),
        "scheduler": to_plain(scheduler.state_dict()),
    }


@functools.cache
def _class_wants_metric(cls: type) -> bool:
    parameters = list(inspect.signature(cls.step).parameters.values())[1:]  # type: ignore[attr-defined]
    return any(parameter.default is parameter.empty for parameter in parameters)


def _wants_metric(scheduler: Any) -> bool:
    parameters = inspect.signature(scheduler.step).parameters.values()
    return any(parameter.default is parameter.empty for parameter in parameters)


_KINDS: dict[str, Any] = {"tuple": tuple, "dict": dict, "Counter": Counter}


def to_plain(value: Any, path: str = "state_dict") -> Any:
    """Return `value` in dicts with string keys, lists, numbers, strings, bools and None.

    Values without a form in JSON are tagged: a tuple becomes {"kind": "tuple", "items": [...]}, a
    mapping with other keys than strings {"kind": "dict" or "Counter", "items": [[key, value]...]}.

    Example:
        >>> to_plain({"milestones": Counter([30, 80])})
        {'milestones': {'kind': 'Counter', 'items': [[30, 1], [80, 1]]}}
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list):
        return [to_plain(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {key: to_plain(item, f"{path}.{key}") for key, item in value.items()}
    if type(value) in _KINDS.values():
        items = list(value.items()) if isinstance(value, Mapping) else list(value)
        pairs = [list(item) for item in items] if isinstance(value, Mapping) else items
        return {"kind": type(value).__name__, "items": to_plain(pairs, path)}
    raise ScheduleStateError(
        f"{path} is a {type(value).__name__}: {value!r}. The state of a schedule holds plain "
        "numbers, strings, lists and dicts only, so that it can be saved exactly"
    )


def from_plain(value: Any) -> Any:
    """Return what `to_plain` was given, in fresh containers.

    Example:
        >>> from_plain(to_plain({"betas": (0.9, 0.95)}))
        {'betas': (0.9, 0.95)}
    """
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"kind", "items"} and value["kind"] in _KINDS:
        items = from_plain(value["items"])
        kind = _KINDS[value["kind"]]
        return kind(items) if kind is tuple else kind(dict(items))
    return {key: from_plain(item) for key, item in value.items()}
