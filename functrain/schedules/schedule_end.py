"""The argument ``schedule_end`` of ``fit``: how a run continues beyond the end of its schedule."""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

import attrs

from functrain.core import learning_rate
from functrain.core.learning_rate import SchedulerState, Schedules
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram, State
from functrain.core.state import TrainState, with_fields
from functrain.errors import (
    ConfigurationError,
    FunctrainError,
    ScheduleEndedError,
    ScheduleEndedWarning,
)
from functrain.errors.base import warn
from functrain.errors.validators import one_of, optional
from functrain.schedules import resuming
from functrain.schedules.composite import own_end
from functrain.schedules.curve import Curve, curves, map_curves

# How a run continues beyond the end of its schedule.
_End: TypeAlias = Literal["keep", "stretch", "restart"]
ScheduleEnd: TypeAlias = _End | None
_CHOICE = optional(one_of(_End))


def scheduled(
    program: AnyProgram, state: State, steps: int | None, schedule_end: ScheduleEnd = None
) -> State:
    """Return the state with the length of the run, where its schedule takes it from there.

    Raises:
        UnknownLengthError: the schedule ends with the run, whose length is unknown.
        ConfigurationError: the schedule does not fit into the run.
        ScheduleEndedError: the rest of the run would have a rate of zero.
        ConfigurationError: ``schedule_end`` is something else.
        ScheduleStateError: the state is of another kind of schedule.

    Warns:
        RecipeChangedWarning: the state has the curve of a schedule of another length.
        ScheduleEndedWarning: the run has become longer than the curve, or goes on at a last rate
            that is a small part of its rates.
    """
    done, alone = state.counters.step, "" in program.leaves()

    def one(program: Program, state: TrainState) -> TrainState:
        at = state.counters.step  # another than that of the run, where several programs make it
        end = None if steps is None else at + steps - done
        try:
            if end is not None:
                state = program.with_horizon(state, end)
            learning_rate.rate(program.schedules, state.scheduler, at)
        except Exception as error:
            if isinstance(error, KeyError):
                from functrain.diagnosis.fitting_state import explain_schedule

                explain_schedule(error, program.fixed, state)
            # A function of the user, such as a table, may give no rate beyond the last update.
            if isinstance(error, FunctrainError) or (end is not None and at < end):
                raise
        # How many updates of several programs a run makes, only their steps show.
        known = end if alone or schedule_end is not None else None
        scheduler = continued(program.schedules, state.scheduler, at, known, schedule_end)
        learning_rate.warn_of_overruled(program.schedules, scheduler)
        return with_fields(state, scheduler=scheduler)

    _CHOICE.check("schedule_end", schedule_end)
    scheduled_state: State = program.map_states(one, state)
    return scheduled_state


def continued(
    schedules: Schedules,
    scheduler: SchedulerState,
    at: int,
    steps: int | None,
    schedule_end: ScheduleEnd,
) -> SchedulerState:
    """Return the scheduler state of a run that continues to ``steps`` after ``at`` updates.

    It depends on nothing else, so that a run that was killed and is resumed continues equally.
    """
    _CHOICE.check("schedule_end", schedule_end)
    if steps is None or at >= steps or schedule_end == "keep":
        return scheduler
    if schedule_end is None:
        for name, curve in curves(schedules, scheduler):
            _check(name, curve, at, steps)
        return scheduler
    function = functools.partial(_continued, at=at, steps=steps, choice=schedule_end)
    return map_curves(function, schedules, scheduler)


def with_resumed_schedule(
    program: AnyProgram, state: State, steps: int | None, schedule_end: ScheduleEnd = None
) -> State:
    """Return :func:`scheduled` of a loaded state, which keeps the curve it began with."""

    def one(program: Program, state: TrainState) -> TrainState:
        more = {name: state.scheduler[name] for name in program.not_schedules}
        saved = {name: own for name, own in state.scheduler.items() if name not in more}
        scheduler = {**resuming.resumed(program.schedules, saved), **more}
        return with_fields(state, scheduler=scheduler)

    resumed: State = program.map_states(one, state)
    return scheduled(program, resumed, steps, schedule_end)


def guarded(program: AnyProgram, steps: int | None, schedule_end: ScheduleEnd) -> AnyProgram:
    """Return a program that refuses a rate of zero which :func:`scheduled` cannot foresee."""
    # A step of several programs may make any number of updates of each.
    foreseen = (steps is not None and "" in program.leaves()) or schedule_end == "keep"
    zero_rate: Literal["ignore", "raise"] = "ignore" if foreseen else "raise"
    return program.map_leaves(lambda one: attrs.evolve(one, zero_rate=zero_rate))


def _check(name: str, curve: Curve, at: int, steps: int) -> None:
    """Refuse to continue at a rate of zero; warn about another constant last rate."""
    kind, longer = curve.kind, resuming.is_longer(curve, steps)
    try:
        ends, at_zero = curve.end(steps), resuming.ends_at_zero(curve, at, steps)
    except FunctrainError:
        raise
    except Exception as error:  # of the user's function, such as a table, or of a torch scheduler
        others = _remedies(curve, at, steps, without="keep")
        raise ScheduleEndedError(
            f"{name}: {kind} takes no steps up to update {steps}, to which the run continues: "
            f"{type(error).__name__}: {error}. End the run before, or give it a length that "
            "reaches so far" + (f"; and choose how it continues:\n{others}" if others else "")
        ) from error
    if at_zero:
        own = "" if longer else _longer(curve, at)
        where = "before the run does" if ends is None else f"at update {ends}"
        raise ScheduleEndedError(
            f"{name}: {kind} ends {where} with a learning rate of exactly 0, and the run continues "
            f"to update {steps}: the rest of it would train nothing. End the run there{own}; or "
            f"choose how it continues:\n{_remedies(curve, at, steps)}"
        )
    if longer or curve.is_spent(steps - 1):
        begun = ", as the run was begun, and the run now" if longer else " by itself, and the run"
        own = "" if longer else f" End the run there{_longer(curve, at)}; or"
        choose = "choose" if own else "Choose"
        warn(
            f"{name}: {kind} ends at update {ends}{begun} continues to {steps}: the updates from "
            f"{ends} on have its last rate, {curve.rate(steps - 1):.3g}.{own} {choose} how it "
            f"continues:\n{_remedies(curve, at, steps)}",
            ScheduleEndedWarning,
        )


def _longer(curve: Curve, at: int) -> str:
    """Say how a schedule with a length of its own may reach the end of the run."""
    kind = curve.kind
    if own_end(curve.schedule) is None:
        return f", or give {kind} values up to there"
    if at:
        return f', or give {kind} no length of its own, and schedule_end="stretch" or "restart"'
    return f", or give {kind} no length of its own, so that it ends with it"


def _remedies(curve: Curve, at: int, steps: int, without: str = "") -> str:
    """List the choices that this schedule can follow, a line each."""
    choices = {
        "stretch": f"from here on the curve of a run of {steps} updates",
        "restart": f"a new curve over the {steps - at} updates from update {at} on",
        "keep": "the curve as it is, and its last rate after it",
    }
    return "\n".join(
        f'  schedule_end="{choice}" (fit.schedule_end={choice} on the command line): {meaning}'
        for choice, meaning in choices.items()
        if choice != without and (choice == "keep" or _can(curve, at, steps, choice))
    )


def _can(curve: Curve, at: int, steps: int, choice: str) -> bool:
    try:
        _continued(curve, at, steps, choice)
    except (ScheduleEndedError, ConfigurationError):
        return False
    return True


def _continued(curve: Curve, at: int, steps: int, choice: str) -> SchedulerState:
    if not resuming.ends_before(curve, at, steps):
        return curve.state
    change = resuming.stretch if choice == "stretch" else resuming.restart
    try:
        changed = change(curve, at, steps)
    except FunctrainError:
        raise
    except Exception:  # of a torch scheduler, or of the user's function
        changed = None
    # Otherwise repeating the call would change the schedule once more.
    if changed is None or resuming.ends_before(changed, at, steps):
        raise ScheduleEndedError(
            f'schedule_end="{choice}": {curve.schedule!r} has a length of its own and ends before '
            f"the run, which continues to update {steps}. Give it no length, so that it ends with "
            'the run, or one that reaches so far; or schedule_end="keep" for its last rate'
        )
    return changed.state
