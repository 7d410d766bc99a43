"""Row 16: every class of torch.optim.lr_scheduler, equal to torch used directly, bit for bit."""

from __future__ import annotations

import copy
import inspect
import json
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from functrain.errors import ConfigurationError, MissingMetricWarning, ScheduleStateError
from functrain.schedules import ScheduleState, TorchSchedule, from_torch

STEPS = 300
LR = 0.3

Maker = Callable[[torch.optim.Optimizer], Any]


class Decay:
    """A callable object with a state of its own, as LambdaLR allows."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 0.99 ** (step + self.calls % 3)


def hyperbola(step: int) -> float:
    return 1 / (1 + 0.1 * step)


def shrink(step: int) -> float:
    return 0.9 if step % 3 else 1.02


def inverse(cycle: float) -> float:
    return 1 / cycle


# By class, the cases: arguments in which `from_torch(...)` stands for an inner scheduler.
CASES: dict[str, list[dict[str, Any]]] = {
    "LambdaLR": [{"lr_lambda": hyperbola}, {"lr_lambda": Decay()}],
    "MultiplicativeLR": [{"lr_lambda": shrink}],
    "StepLR": [{"step_size": 7}, {"step_size": 30, "gamma": 0.7}],
    "MultiStepLR": [{"milestones": [30, 80, 80, 200], "gamma": 0.5}],
    "ConstantLR": [{}, {"factor": 0.5, "total_iters": 40}],
    "LinearLR": [{}, {"start_factor": 0.1, "end_factor": 0.9, "total_iters": 123}],
    "ExponentialLR": [{"gamma": 0.98}],
    "PolynomialLR": [{}, {"total_iters": 250, "power": 2.5}],
    "CosineAnnealingLR": [{"T_max": 300}, {"T_max": 37, "eta_min": 0.01}],
    "CosineAnnealingWarmRestarts": [{"T_0": 25}, {"T_0": 10, "T_mult": 2, "eta_min": 1e-3}],
    "CyclicLR": [
        {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 17, "cycle_momentum": False},
        {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 9, "step_size_down": 20}
        | {"mode": "triangular2", "cycle_momentum": False},
        {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 13, "mode": "exp_range", "gamma": 0.99}
        | {"cycle_momentum": False},
        {"base_lr": 0.01, "max_lr": 0.5, "step_size_up": 13, "scale_fn": inverse}
        | {"cycle_momentum": False},
    ],
    "OneCycleLR": [
        {"max_lr": 1.0, "total_steps": STEPS + 1, "cycle_momentum": False},
        {"max_lr": 1.0, "epochs": 11, "steps_per_epoch": 40, "anneal_strategy": "linear"}
        | {"three_phase": True, "cycle_momentum": False},
    ],
    "ChainedScheduler": [
        {
            "schedulers": [
                from_torch(lr_scheduler.ConstantLR, factor=0.1, total_iters=20),
                from_torch(lr_scheduler.ExponentialLR, gamma=0.99),
                from_torch(lr_scheduler.MultiStepLR, milestones=[50, 100]),
            ]
        }
    ],
    "SequentialLR": [
        {
            "schedulers": [
                from_torch(lr_scheduler.LinearLR, start_factor=0.01, total_iters=20),
                from_torch(lr_scheduler.CosineAnnealingLR, T_max=200),
                from_torch(lr_scheduler.MultiStepLR, milestones=[10, 30], gamma=0.3),
            ],
            "milestones": [20, 220],
        },
        {
            "schedulers": [
                from_torch(
                    lr_scheduler.SequentialLR,
                    schedulers=[
                        from_torch(lr_scheduler.ConstantLR),
                        from_torch(lr_scheduler.StepLR, step_size=9, gamma=0.8),
                    ],
                    milestones=[15],
                ),
                from_torch(lr_scheduler.LambdaLR, lr_lambda=hyperbola),
            ],
            "milestones": [150],
        },
    ],
    "ReduceLROnPlateau": [
        {"patience": 3},
        {"mode": "max", "factor": 0.7, "patience": 0, "threshold": 0.1, "threshold_mode": "abs"}
        | {"cooldown": 4, "min_lr": 1e-3},
    ],
}


def schedulers_of_torch() -> set[str]:
    """Return the names of all scheduler classes that torch has, whatever its version."""
    found = inspect.getmembers(lr_scheduler, inspect.isclass)
    return {
        name
        for name, cls in found
        if issubclass(cls, lr_scheduler.LRScheduler)
        and cls not in (lr_scheduler.LRScheduler, lr_scheduler._LRScheduler)
    }


def ours(name: str, case: dict[str, Any]) -> TorchSchedule:
    return from_torch(getattr(lr_scheduler, name), lr=LR, **copy.deepcopy(case))


def theirs(name: str, case: dict[str, Any], optimizer: torch.optim.Optimizer) -> Any:
    """Build the scheduler as a user of torch would."""

    def build(value: Any) -> Any:
        if isinstance(value, TorchSchedule):
            return value.factory(
                optimizer=optimizer, **{k: build(v) for k, v in value.kwargs.items()}
            )
        return [build(item) for item in value] if isinstance(value, list) else value

    arguments = {key: build(value) for key, value in copy.deepcopy(case).items()}
    return getattr(lr_scheduler, name)(optimizer=optimizer, **arguments)


def metrics() -> list[float]:
    """Return a metric that falls, wavers, stalls, and now and then is not a number."""
    source = random.Random(1)
    noisy = [2.0 ** (-step / 50) + source.uniform(-0.05, 0.05) for step in range(STEPS)]
    noisy[40] = noisy[41] = float("nan")
    noisy[60] = float("inf")
    return noisy


def lrs_of_torch(name: str, case: dict[str, Any]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=LR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR in SequentialLR warns of its own doing
        scheduler = theirs(name, case, optimizer)
    lrs = [optimizer.param_groups[0]["lr"]]
    for metric in metrics():
        optimizer.step()
        scheduler.step(*([metric] if name == "ReduceLROnPlateau" else []))
        lrs.append(optimizer.param_groups[0]["lr"])
    return lrs


def lrs_of_ours(
    schedule: TorchSchedule, between: Callable[[int, ScheduleState], ScheduleState]
) -> list[float]:
    state = schedule.init()
    lrs = [schedule.lr(state, 0)]
    for step, metric in enumerate(metrics(), start=1):
        state = between(step, schedule.observe(schedule.advance(state), metric))
        lrs.append(schedule.lr(state, step))
    return lrs


each_case = pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, id=f"{name}-{index}")
        for name, cases in CASES.items()
        for index, case in enumerate(cases)
    ],
)


@pytest.mark.row(16)
def test_every_class_of_torch_is_tested() -> None:
    assert set(CASES) == schedulers_of_torch()


@pytest.mark.row(16)
@each_case
def test_same_lrs_as_torch(name: str, case: dict[str, Any]) -> None:
    expected = lrs_of_torch(name, case)
    assert len(set(expected)) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lrs_of_ours(ours(name, case), lambda step, state: state) == expected


@pytest.mark.row(16)
@pytest.mark.sweep("name", "case")
@each_case
@pytest.mark.parametrize("seed", range(3))
def test_same_lrs_when_resumed_at_random_steps(name: str, case: dict[str, Any], seed: int) -> None:
    source = random.Random(seed)

    def resume(step: int, state: ScheduleState) -> ScheduleState:
        if source.random() < 0.5:
            return state
        saved = json.loads(json.dumps(state))
        assert repr(saved) == repr(state)  # plain values; repr, as NaN is not equal to itself
        return source.choice([saved, copy.deepcopy(state)])

    assert lrs_of_ours(ours(name, case), resume) == lrs_of_torch(name, case)


@each_case
def test_no_call_changes_a_state_or_the_schedule(name: str, case: dict[str, Any]) -> None:
    schedule = ours(name, case)
    state = schedule.init()
    kwargs, before = repr_deeply(schedule.kwargs), repr_deeply(state)
    first = schedule.observe(schedule.advance(state), 1.0)
    schedule.observe(schedule.advance(first), 2.0)
    assert repr_deeply(state) == before
    assert repr_deeply(schedule.kwargs) == kwargs
    assert repr_deeply(schedule.observe(schedule.advance(state), 1.0)) == repr_deeply(first)


def repr_deeply(value: Any) -> str:
    return repr({key: getattr(item, "__dict__", None) or item for key, item in value.items()})


def test_a_call_replays() -> None:
    schedule = ours("CosineAnnealingWarmRestarts", CASES["CosineAnnealingWarmRestarts"][1])
    expected = lrs_of_torch("CosineAnnealingWarmRestarts", CASES["CosineAnnealingWarmRestarts"][1])
    assert [schedule(step) for step in (0, 1, 9, 10, 33)] == [
        expected[step] for step in (0, 1, 9, 10, 33)
    ]


def test_what_the_state_says_outweighs_changed_arguments() -> None:
    begun = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=2, gamma=0.5)
    changed = from_torch(lr_scheduler.StepLR, lr=9.0, step_size=1, gamma=0.1)
    state = begun.init()
    for step in range(6):
        assert changed.lr(state, step) == begun.lr(state, step) == 0.5 ** (step // 2)
        state = changed.advance(state)


def test_what_the_state_says_of_the_parameter_group_outweighs_changed_arguments() -> None:
    cycle = {"total_steps": 20, "cycle_momentum": False}
    begun = from_torch(lr_scheduler.OneCycleLR, lr=1.0, max_lr=0.5, **cycle)
    changed = from_torch(lr_scheduler.OneCycleLR, lr=1.0, max_lr=0.9, **cycle)
    state = begun.init()
    for step in range(20):
        assert changed.lr(state, step) == begun(step)
        state = changed.advance(state) if step < 19 else state


def test_functions_that_make_schedulers() -> None:
    def halving(optimizer: torch.optim.Optimizer, every: int) -> lr_scheduler.StepLR:
        return lr_scheduler.StepLR(optimizer, every, gamma=0.5)

    schedule = from_torch(halving, lr=1.0, every=2)
    assert [schedule(step) for step in range(6)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]


def test_the_global_generator_and_warning_filters_stay() -> None:
    schedule = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=2)
    random_state, filters = torch.get_rng_state(), list(warnings.filters)
    schedule.advance(schedule.init())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert warnings.filters == filters


def test_works_where_new_tensors_have_no_memory() -> None:
    with torch.device("meta"):
        assert from_torch(lr_scheduler.StepLR, lr=1.0, step_size=1)(1) == 0.1


def test_a_missing_metric_is_a_no_op_with_a_notice() -> None:
    schedule = from_torch(lr_scheduler.ReduceLROnPlateau, lr=1.0)
    state = schedule.init()
    with pytest.warns(MissingMetricWarning, match="ReduceLROnPlateau was shown no metric"):
        assert schedule.observe(state, None) is state


def test_metrics_are_nothing_to_other_schedulers() -> None:
    schedule = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=1)
    state = schedule.init()
    assert schedule.observe(state, None) is state


def test_a_metric_driven_lr_has_no_step() -> None:
    schedule = from_torch(lr_scheduler.ReduceLROnPlateau, lr=1.0)
    with pytest.raises(ScheduleStateError, match="ReduceLROnPlateau"):
        schedule(3)


def test_inner_schedulers_may_carry_the_lr() -> None:
    inner = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=1)
    assert from_torch(lr_scheduler.ChainedScheduler, schedulers=[inner])(1) == 0.1


def test_schedulers_of_one_optimizer_have_one_lr() -> None:
    inner = from_torch(lr_scheduler.StepLR, lr=1.0, step_size=1)
    with pytest.raises(ConfigurationError, match=r"ChainedScheduler.*one lr.*1\.0.*2\.0"):
        from_torch(lr_scheduler.ChainedScheduler, lr=2.0, schedulers=[inner])


def test_a_scheduler_needs_an_lr() -> None:
    with pytest.raises(ConfigurationError, match="StepLR: lr is missing"):
        from_torch(lr_scheduler.StepLR, step_size=1).init()


@pytest.mark.parametrize("lr", [-1.0, float("nan"), "0.1", torch.tensor(0.1)])
def test_a_wrong_lr_is_named(lr: Any) -> None:
    with pytest.raises(ConfigurationError, match="TorchSchedule: lr: expected"):
        from_torch(lr_scheduler.StepLR, lr=lr, step_size=1)


def test_torch_rejects_wrong_arguments_at_once() -> None:
    with pytest.raises(TypeError, match="step_size"):
        from_torch(lr_scheduler.StepLR, lr=1.0)


def test_a_state_that_is_not_plain_is_named() -> None:
    class Strange:
        def __init__(self) -> None:
            self.memory = torch.zeros(3)

        def __call__(self, step: int) -> float:
            return 1.0

    with pytest.raises(ScheduleStateError, match=r"state_dict\.lr_lambdas\[0\]\.memory.*Tensor"):
        from_torch(lr_scheduler.LambdaLR, lr=1.0, lr_lambda=Strange())


def test_a_scheduler_itself_is_refused_with_what_to_write() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1)
    made = lr_scheduler.StepLR(optimizer, 1)
    for factory in (made, "StepLR"):
        with pytest.raises(ConfigurationError, match=r"give the class and its arguments"):
            from_torch(factory, lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="leave the optimizer out"):
        from_torch(lr_scheduler.StepLR, lr=0.1, step_size=1, optimizer=optimizer)


class DecaysToo(lr_scheduler.StepLR):
    """A scheduler that sets the weight decay beside the learning rate."""

    def get_lr(self) -> list[float]:
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.1 * group["lr"]
        return super().get_lr()


@pytest.mark.parametrize(
    ("factory", "arguments", "moved"),
    [
        (lr_scheduler.OneCycleLR, {"max_lr": 0.1, "total_steps": 9}, "sets momentum of"),
        (lr_scheduler.CyclicLR, {"base_lr": 0.1, "max_lr": 0.5}, "cycle_momentum=False"),
        (DecaysToo, {"step_size": 2}, "sets weight_decay of the optimizer"),
    ],
)
def test_a_scheduler_of_more_than_the_learning_rate_is_refused(
    factory: Any, arguments: dict[str, Any], moved: str
) -> None:
    with pytest.raises(ConfigurationError, match=moved):
        from_torch(factory, lr=0.1, **arguments)
