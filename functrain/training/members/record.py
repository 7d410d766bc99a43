"""Whether ``fit`` can train a population: its given state, and the record in its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from functrain.core.protocol import AnyProgram
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, ResumeWarning, RunChangedError
from functrain.errors.base import warn
from functrain.populations import hyperparameters
from functrain.populations.program import Population
from functrain.populations.states import held_by, is_population, running, stops


def describe(program: AnyProgram) -> dict[str, Any] | None:
    """Return the members of a population as plain data; ``None`` of another program."""
    if not isinstance(program, Population):
        return None
    return {
        "members": len(program),
        "batches": program.batches,
        "seeds": list(program.seeds),
        "hyperparameters": {path: _shown(each) for path, each in program.values.items()},
    }


def require_running(program: AnyProgram, state: TrainState) -> None:
    """Refuse a given state with nothing to train, since all members have stopped."""
    if not isinstance(program, Population) or program.running(state):
        return
    steps = [place["step"] for place in stops(state).values()]
    raise ConfigurationError(
        f"state=: all {len(program)} members of this state have stopped, at steps "
        f"{', '.join(map(str, steps))}; restore_best leaves each member at its own best step. To "
        "train all from their last state, fit without restore_best or resume the run directory. To "
        "train one, functrain.fit(pop.programs[i], data, state=pop.member(state, i), until=...). "
        "To train members that stand at the same step, pop.stacked([pop.member(state, 0), ...])"
    )


def warn_of_stopped(state: TrainState, path: Path) -> None:
    """Warn that members of a resumed run have stopped by another rule than the present one."""
    if not is_population(state) or not stops(state):
        return
    left = running(state)
    steps = ", ".join(str(place["step"]) for place in stops(state).values())
    which = f"{len(stops(state))} members" if left else "all members"
    warn(
        f"{which} of the run in {path.parent} have stopped, at steps {steps}, by the rule that it "
        f"had: {'they are not' if left else 'nothing is'} trained, whatever early_stop is now. To "
        "train one on, functrain.fit(pop.programs[i], data, state=pop.member(state, i), until=...);"
        " to train all by the new rule, choose another directory",
        ResumeWarning,
    )


def check(
    program: AnyProgram, info: dict[str, Any], path: Path, state: TrainState | None = None
) -> dict[str, Any]:
    """Refuse to resume with other members than those of the checkpoint.

    Its state holds their hyperparameters, so others would have no effect. They may be those with
    which the run began, or those that the state holds since ``pop.replaced``.
    """
    before, now = info.get("population"), describe(program)
    if before is None and now is None:
        return info
    if before is None or now is None:
        kinds = "a population", "one program"
        then, here = kinds if now is None else reversed(kinds)
        raise RunChangedError(
            f"the run in {path.parent} is one of {then}, got {here}. Continue it with that, or "
            "choose another directory"
        )
    held = hyperparameters.held(program.values) if isinstance(program, Population) else {}
    for name in ("members", "seeds", "batches"):
        if before[name] != now[name]:
            _refuse(name, before[name], now[name], path)
    mine, theirs = now["hyperparameters"], before["hyperparameters"]
    if mine.keys() != theirs.keys():
        _refuse("hyperparameters", ", ".join(theirs) or "none", ", ".join(mine) or "none", path)
    last = {} if state is None else held_by(state)
    for name in held:
        if mine[name] not in (theirs[name], _shown(last.get(name, ()))):
            _refuse(name, theirs[name], mine[name], path)
    same = {**theirs, **{name: mine[name] for name in held}}
    return {**info, "population": {**before, "hyperparameters": same}}


def _refuse(name: str, before: Any, now: Any, path: Path) -> None:
    raise RunChangedError(
        f"the population in {path.parent} has other members: {name} is {before} in its checkpoint, "
        f"got {now}. Continue it with the same population, or begin in another directory. To go on "
        "with some of them, or with other hyperparameters, load the state and use pop.only or "
        "pop.replaced"
    )


def _shown(each: tuple[Any, ...]) -> list[Any]:
    return [value if isinstance(value, int | float) else repr(value) for value in each]
