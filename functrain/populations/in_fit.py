"""The answers of a population to a run: metrics by member, and the record in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.core.batch import Batch
from functrain.core.loss import LossOutput, computed, merged, not_negative
from functrain.core.precision import widest
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, ResumeWarning, RunChangedError
from functrain.errors.base import warn
from functrain.metrics import Mean
from functrain.populations import hyperparameters, states
from functrain.populations.batches import of_members
from functrain.populations.members import member_of, rows
from functrain.training.one_model import Evaluated, OneModel, whole


class Each(NamedTuple):
    """A metric that is a value, of each member."""

    each: list[Any]

    @property
    def higher_is_better(self) -> Any:
        """Return what the metric says of itself."""
        return getattr(self.each[0], "higher_is_better", None)

    def merge(self, other: Each) -> Each:
        """Return the metric of each member over the samples of both."""
        return Each([merged(pair) for pair in zip(self.each, other.each, strict=True)])


class Members(OneModel):
    """The answers of a population; ``program`` is one."""

    kind = "a population"

    # -- evaluation --------------------------------------------------------------------------

    def evaluated(self, state: TrainState) -> Evaluated:
        """Return the members that have not stopped, their state, and the cut to their batches."""
        running, members = self.program.running(state), len(self.program)
        if len(running) == members:
            return self.program, state, whole
        own = partial(of_members, members=members, indices=running)
        return *self.program.only(state, running), own if self._has_own_batches else whole

    @property
    def _has_own_batches(self) -> bool:
        return bool(self.program.batches == "own")

    def batch_of_one(self, batch: Batch) -> Batch:
        """Return the batch of one member."""
        return rows(batch, 0) if self._has_own_batches else batch

    def weight(self, loss_output: LossOutput, batch: Batch) -> Tensor:
        """Return the weight of a batch, or one for each member."""
        weight = loss_output.weight
        if isinstance(weight, Tensor) and weight.ndim:
            return not_negative(weight)
        return loss_output.weight_of(batch)

    def metric(self, value: Any, weight: Tensor) -> Any:
        """Return what a batch adds to a metric of each member."""
        if not isinstance(value, Tensor):
            return Each([member_of(value, member) for member in range(len(self.program))])
        wide = value.detach().to(widest(value.device))
        each = weight.detach().to(wide).expand_as(wide)
        return Mean((wide * each).masked_fill(each == 0, 0), each)

    def numbers(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a list with the number of each member, by metric."""
        found: dict[str, list[float]] = {}
        for name, value in values.items():
            if isinstance(value, Mean):
                found[name] = value.compute().tolist()
                continue
            each = [computed({name: one}, torch.device("cpu")) for one in value.each]
            found |= {key: [one[key].item() for one in each] for key in each[0]}
        return found

    def widened(self, state: TrainState, means: dict[str, Any]) -> dict[str, Any]:
        """Return numbers of running members as ones of all, ``None`` for those that stopped."""
        running, members = self.program.running(state), range(len(self.program))
        wide = {}
        for name, each in means.items():
            by_member = dict(zip(running, each, strict=True))
            wide[name] = [by_member.get(member) for member in members]
        return wide

    def reported(self, state: TrainState, means: dict[str, Any]) -> dict[str, Any]:
        """Return lists of numbers of all members with ``None`` for those that have stopped."""
        running = self.program.running(state)

        def own(each: Any) -> Any:
            if not isinstance(each, list):  # a number that a listener gave
                return each
            return [one if member in running else None for member, one in enumerate(each)]

        return {name: own(each) for name, each in means.items()}

    # -- the run -----------------------------------------------------------------------------

    def is_over(self, state: TrainState) -> bool:
        """Return whether no member is running."""
        return not self.program.running(state)

    def require_unfinished(self, state: TrainState) -> None:
        """Refuse a given state all of whose members have stopped."""
        if not self.is_over(state):
            return
        steps = [place["step"] for place in states.stops(state).values()]
        raise ConfigurationError(
            f"state=: all {len(self.program)} members of this state have stopped, at steps "
            f"{', '.join(map(str, steps))}; restore_best leaves each member at its own best step. "
            "To train all from their last state, fit without restore_best or resume the run "
            "directory. To train one, functrain.fit(pop.programs[i], data, state=pop.member(state, "
            "i), until=...). To train members that stand at the same step, "
            "pop.stacked([pop.member(state, 0), ...])"
        )

    def describe(self) -> dict[str, Any]:
        """Return the members as plain data."""
        values = self.program.values
        return {
            "members": len(self.program),
            "batches": self.program.batches,
            "seeds": list(self.program.seeds),
            "hyperparameters": {path: _shown(each) for path, each in values.items()},
        }

    def check_record(
        self, info: dict[str, Any], path: Path, state: TrainState | None = None
    ) -> dict[str, Any]:
        """Refuse to resume with other members than those of the checkpoint.

        Its state holds their hyperparameters, so others would have no effect. They may be those
        with which the run began, or those that the state holds since ``pop.replaced``.
        """
        before, now = info.get("population"), self.describe()
        if before is None:
            raise self.other_kind("one program", path)
        for name in ("members", "seeds", "batches"):
            if before[name] != now[name]:
                raise _other_members(name, before[name], now[name], path)
        mine, theirs = now["hyperparameters"], before["hyperparameters"]
        if mine.keys() != theirs.keys():
            then, here = (", ".join(each) or "none" for each in (theirs, mine))
            raise _other_members("hyperparameters", then, here, path)
        held = hyperparameters.held(self.program.values)
        last = {} if state is None else states.held_by(state)
        for name in held:
            if mine[name] not in (theirs[name], _shown(last.get(name, ()))):
                raise _other_members(name, theirs[name], mine[name], path)
        same = {**theirs, **{name: mine[name] for name in held}}
        return {**info, "population": {**before, "hyperparameters": same}}

    def warn_of_stopped(self, state: TrainState, path: Path) -> None:
        """Warn that members of a resumed run have stopped by another rule than the present one."""
        stops = states.stops(state)
        if not stops:
            return
        is_over = self.is_over(state)
        which = "all members" if is_over else f"{len(stops)} members"
        steps = ", ".join(str(place["step"]) for place in stops.values())
        warn(
            f"{which} of the run in {path.parent} have stopped, at steps {steps}, by the rule that "
            f"it had: {'nothing is' if is_over else 'they are not'} trained, whatever early_stop "
            "is now. To train one on, functrain.fit(pop.programs[i], data, state=pop.member(state, "
            "i), until=...); to train all by the new rule, choose another directory",
            ResumeWarning,
        )


def _other_members(name: str, before: Any, now: Any, path: Path) -> RunChangedError:
    return RunChangedError(
        f"the population in {path.parent} has other members: {name} is {before} in its checkpoint, "
        f"got {now}. Continue it with the same population, or begin in another directory. To go on "
        "with some of them, or with other hyperparameters, load the state and use pop.only or "
        "pop.replaced"
    )


def _shown(each: tuple[Any, ...]) -> list[Any]:
    return [value if isinstance(value, int | float) else repr(value) for value in each]
