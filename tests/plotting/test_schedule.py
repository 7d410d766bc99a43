"""Every schedule can be drawn."""

from __future__ import annotations

import io
from typing import Any

import pytest
from torch.optim import lr_scheduler

from functrain import plotting, schedules
from functrain.config.targets import instantiated
from functrain.errors import ConfigurationError, ScheduleStateError, UnknownLengthError
from functrain.schedules import (
    Constant,
    Cosine,
    Scaled,
    Schedule,
    Sequential,
    Warmup,
    from_torch,
)

HYPERBOLA = {"lr": 0.1, "upper_bound": 50, "infimum_lr": 0.01}
PLAIN = {"lr": 0.1, "warmup_steps": 2, "decay_proportion": 0.5}
# The arguments of every class, as a configuration writes them.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "Constant": {"lr": 0.1},
    "Cosine": {"lr": 0.1},
    "CosineRestarts": {"lr": 0.1, "period": 3, "growth": 2},
    "Cyclic": {"lr": 0.1, "top": 0.5, "up": 3},
    "ExpHyperbolic": HYPERBOLA,
    "Exponential": {"lr": 0.1, "factor": 0.9},
    "ExponentialWarmup": {"period": 3, "then": 0.1},
    "Hyperbolic": HYPERBOLA,
    "InverseSqrt": {"lr": 0.1, "warmup_steps": 3},
    "Joined": {"parts": [[0.5, 0.1], [0.5, {"_target_": "functrain.schedules.Cosine", "lr": 0.1}]]},
    "Linear": {"lr": 0.1},
    "MultiStep": {"lr": 0.1, "milestones": [3, 6]},
    "OneCycle": {"lr": 0.1},
    "Piecewise": {"points": {0: 0.1, 5: 0.01}},
    "Polynomial": {"lr": 0.1, "power": 2},
    "Scaled": {"schedule": 0.1, "factor": 2},
    "Sequential": {"schedules": [0.1, 0.2], "boundaries": [3]},
    "Step": {"lr": 0.1, "every": 3},
    "Warmup": {"factor": 0.1, "steps": 3, "then": 0.1},
    "WarmupCosine": {"lr": 0.1, "warmup_steps": 3},
    "WarmupLinear": {"lr": 0.1, "warmup_proportion": 0.3},
    "WarmupStableDecay": PLAIN,
}
BY_METRICS: dict[str, dict[str, Any]] = {"Plateau": {"lr": 0.1}, "Spike": {"schedule": 0.1}}
NO_ARGUMENTS = {"Lambda", "TorchSchedule", "Schedule", "Observed", "ScheduleState"}


def named(name: str, arguments: dict[str, Any]) -> Any:
    return instantiated({"_target_": f"functrain.schedules.{name}", **arguments}, "lr")


def drawn(axes: Any) -> list[float]:
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(range(len(line.get_ydata())))
    return [float(lr) for lr in line.get_ydata()]


def test_the_tables_name_every_class() -> None:
    names = set(ARGUMENTS) | set(BY_METRICS) | NO_ARGUMENTS
    assert names | {"as_schedule", "from_torch"} == set(schedules.__all__)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_a_configuration_names_can_be_drawn(name: str) -> None:
    schedule = named(name, ARGUMENTS[name])
    assert isinstance(schedule, Schedule)
    state = schedule.with_horizon(schedule.init(), 20)
    axes = plotting.schedule(schedule, steps=20)
    assert drawn(axes) == [schedule.lr(state, step) for step in range(20)]
    picture = io.BytesIO()
    axes.figure.savefig(picture)
    assert picture.getvalue().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", BY_METRICS)
def test_a_schedule_that_needs_metrics_says_so(name: str) -> None:
    inner = named(name, BY_METRICS[name])
    for schedule in (inner, Warmup(0.1, 3, then=inner), Sequential([0.1, inner], [3])):
        with pytest.raises(ScheduleStateError, match=f"{type(schedule).__name__}'s lr depends"):
            plotting.schedule(schedule, steps=10)
    with pytest.raises(ScheduleStateError):
        plotting.schedule(from_torch(lr_scheduler.ReduceLROnPlateau, lr=0.1), steps=10)


def test_without_steps_the_horizon_is_drawn() -> None:
    axes = plotting.schedule(Warmup(0.5, 2, then=Cosine(1.0, steps=2)))
    assert drawn(axes) == [0.5, 0.75, 1.0, 0.5]
    for schedule in (Constant(0.1), Cosine(0.1), Scaled(Cosine(0.1), 2.0)):
        with pytest.raises(UnknownLengthError, match=f"{type(schedule).__name__}.*steps=N"):
            plotting.schedule(schedule)
    for steps in (0, 2.5):
        with pytest.raises(ConfigurationError, match=f"an integer >= 1, got {steps}"):
            plotting.schedule(Constant(0.1), steps=steps)  # type: ignore[arg-type]


def test_several_schedules_on_the_same_axes() -> None:
    axes = plotting.schedule(Constant(0.1), steps=5)
    assert plotting.schedule(Cosine(0.1), steps=5, ax=axes) is axes
    assert len(axes.lines) == 2


def test_a_torch_schedule_is_drawn_by_its_steps() -> None:
    schedule = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=2, gamma=0.5)
    assert drawn(plotting.schedule(schedule, steps=5)) == [1.0, 1.0, 0.5, 0.5, 0.25]
