"""``functrain.phases``: train other parts of one model as a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import attrs

from functrain.core import step
from functrain.core.batch import Batch
from functrain.core.first_step import require_state
from functrain.core.loss import Metrics
from functrain.core.optimizer import means
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, require_plain
from functrain.core.recipe import StaticParts, Trainable
from functrain.core.state import Counters, TrainState
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest
from functrain.training.durations import Duration, Epochs, Steps, duration

# The end of a phase, or None for the last one, and the parameters that it trains.
Phase: TypeAlias = tuple[Duration | str | None, Trainable]


@attrs.frozen(eq=False)
class PhasedStep:
    """The device steps of all phases; a program chooses one by the place of the run."""

    ends: tuple[Steps | Epochs, ...]
    steps: tuple[step.AnyDeviceStep, ...]
    description: str

    def __call__(self, *given: Any) -> Any:
        """Refuse a call: the place of the run is needed to choose a phase."""
        raise ConfigurationError(
            "phases: expected a call of train_step, which knows the phase, got one of the device "
            "part alone. Apply phases last"
        )

    def at(self, counters: Counters) -> step.AnyDeviceStep:
        """Return the device step of the phase that a run is in."""
        at = {Epochs: counters.epoch, Steps: counters.step}
        return self.steps[sum(at[type(end)] >= end.n for end in self.ends)]


@attrs.frozen(eq=False, repr=False)
class Phased(Program):
    """A program made by :func:`functrain.phases`.

    Attributes:
        counted: whether the loop that makes the steps counts epochs, as ``fit`` does.
    """

    counted: bool = attrs.field(default=False, kw_only=True)
    in_phases: ClassVar[bool] = True

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Make one update of the parameters of the present phase; see ``Program.train_step``."""
        require_state(state, batch)
        chosen: Any = _chosen(self.device_step, state.counters, self.counted)
        plain = Program(self.fixed, self.schedules, chosen, self.donates, self.zero_rate)
        return plain.train_step(state, batch)


def counting_epochs(program: AnyProgram) -> AnyProgram:
    """Return a program for a loop that counts the epochs in which phases may end."""
    return attrs.evolve(program, counted=True) if isinstance(program, Phased) else program


def _chosen(device_step: Any, counters: Counters, counted: bool) -> Any:
    """Return the device step of a phase, within one that checks it."""
    if not isinstance(device_step, PhasedStep):
        chosen = _chosen(device_step.device_step, counters, counted)
        return attrs.evolve(device_step, device_step=chosen)
    first = next(iter(device_step.ends), None)
    if isinstance(first, Epochs) and not counted:
        raise ConfigurationError(
            f"phases: the first one ends after {first}, and train_step counts no "
            "epochs: it would never end. Train by functrain.fit or functrain.iterate, or give ends "
            'in steps, such as "500 steps"; so too for a program of a joint one'
        )
    return device_step.at(counters)


@explained
def phases(program: Program, each: Sequence[Phase]) -> Phased:
    """Return a program that trains other parameters as a run goes on, for gradual unfreezing.

    A parameter that a phase does not train gets no gradient, as in a loop with
    ``requires_grad_(False)``: neither its value nor its moments change, and weight decay leaves it
    alone. Moments of the others are kept from phase to phase, and those of a parameter begin when
    it is first trained, as after ``optimizer.add_param_group``. Data order, schedule, average and
    counters go on, and a run may be resumed in any phase.

    Args:
        program: an eager program that trains all parameters of all phases.
        each: pairs of the end of a phase, ``"2 epochs"`` or ``"500 steps"`` counted from the
            beginning of the run, and patterns or a predicate (path, tensor) of the parameters that
            it trains. The end of the last phase is ``None``. ``fit`` and ``iterate`` count epochs;
            ``train_step`` in a loop of your own, or in that of a joint program, takes ends in
            steps only.

    Returns:
        The program of all phases.

    Raises:
        ConfigurationError: the phases do not follow each other, a phase trains nothing, a pattern
            matches no parameter that the program trains, or the program is no eager one.

    Example:
        >>> import functrain as ft, torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Linear(4, 1))
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> program = ft.program(model, loss, ft.optim.Adam(lr=0.1))
        >>> gradual = ft.phases(program, [("2 steps", "1.*"), (None, "*")])
        >>> state = begun = gradual.init()
        >>> for _ in range(3):
        ...     state, _ = gradual.train_step(state, torch.ones(4, 2))
        ...     print(torch.equal(state.params["0.weight"], begun.params["0.weight"]))
        True
        True
        False
    """
    require_plain(program, "phases")
    if not step.is_eager(program.device_step) or type(program) is not Program:
        raise ConfigurationError(
            "phases: expected an eager program, as functrain.program makes it, got one that is "
            "compiled, sharded or transformed otherwise"
        )
    if not each or any(not isinstance(one, tuple | list) or len(one) != 2 for one in each):
        raise ConfigurationError(
            'phases: expected pairs of an end and patterns, [("2 epochs", "head.*"), (None, "*")], '
            f"got {each!r}"
        )
    ends = _ends([end for end, _ in each])
    trained = [_paths(program.fixed, patterns) for _, patterns in each]
    chosen = tuple(_step_of(program.fixed, paths) for paths in trained)
    ended = [f"until {end}: {patterns!r}" for end, patterns in each[:-1]]
    description = "; ".join(["eager, in phases", *ended, f"then: {each[-1][1]!r}"])
    made: Any = PhasedStep(ends, chosen, description)
    return Phased(
        *(program.fixed, program.schedules, made, program.donates, program.zero_rate),
        read=program.read,
    )


def _ends(given: Sequence[Duration | str | None]) -> tuple[Steps | Epochs, ...]:
    *given, last = given
    if last is not None:
        raise ConfigurationError(
            f"phases: expected None as the end of the last phase, got {last!r}: the run ends where "
            "fit(until=...) says"
        )
    found = []
    for value in given:
        end = None if value is None else duration(value)
        if not isinstance(end, Steps | Epochs) or end.n != int(end.n):
            raise ConfigurationError(
                f'phases: expected ends in whole epochs or steps, such as "2 epochs", got {value!r}'
            )
        found.append(end)
    kinds = {type(end) for end in found}
    numbers = [end.n for end in found]
    if len(kinds) > 1 or numbers != sorted(set(numbers)):
        raise ConfigurationError(
            "phases: expected ends in one unit, each after the one before, got "
            f"{', '.join(map(str, found))}"
        )
    return tuple(found)


def _paths(fixed: StaticParts, patterns: Trainable) -> list[str]:
    """Return the paths that a phase trains."""
    params = fixed.model.named_params
    single = isinstance(patterns, str) or callable(patterns)
    every: Sequence[Any] = [patterns] if single else list(patterns)  # type: ignore[arg-type]
    for pattern in every:
        if not any(means(pattern, path, params) for path in fixed.trainable):
            hint = nearest(pattern, fixed.trainable) if isinstance(pattern, str) else ""
            raise ConfigurationError(
                f"phases: {pattern!r} matches none of the {len(fixed.trainable)} parameters that "
                f"the program trains{hint}"
            )
    return [path for path in fixed.trainable if means(patterns, path, params)]


def _step_of(fixed: StaticParts, paths: list[str]) -> step.AnyDeviceStep:
    """Return the eager device step that takes gradients of some parameters only."""
    if paths == fixed.trainable:
        return step.eager(fixed)

    def gradients(fixed: StaticParts, *rest: Any) -> Any:
        return step.EAGER.gradients(attrs.evolve(fixed, trainable=paths), *rest)

    return step.DeviceStep(step.EAGER._replace(gradients=gradients), fixed)
