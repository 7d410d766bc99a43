"""What a run does, and when: the arguments of ``fit``, parsed."""

from __future__ import annotations

from typing import Any

import attrs

from functrain.core.program import Program
from functrain.training.durations import Duration, Samples
from functrain.training.evaluation import Evaluations
from functrain.training.limits import Limits, Position, due
from functrain.training.schedule_end import ScheduleEnd, guarded


@attrs.frozen(eq=False, kw_only=True)
class Plan:
    """What a run does, and when.

    Attributes:
        program: the program to train.
        donating: the same program, whose step overwrites the state that it is given.
        limits: when the run ends.
        evaluations: the evaluation sets, and when each is due.
        save_every: when a checkpoint is due.
        restore_best: whether ``fit`` returns the best state.
        counts_samples: whether any of these is in samples, so that all batches need a size.
    """

    program: Program
    donating: Program
    limits: Limits
    evaluations: Evaluations
    save_every: Duration
    restore_best: bool
    counts_samples: bool = attrs.field(init=False)

    @counts_samples.default
    def _in_samples(self) -> bool:
        own = [each.every for each in self.evaluations.sets.values()]
        durations = (*self.limits.durations, self.save_every, self.evaluations.every, *own)
        return any(isinstance(each, Samples) for each in durations)

    def total_steps(self, batches: int | None) -> int | None:
        """Return the updates that the limits allow, where known; see :meth:`Limits.steps`."""
        return self.limits.steps(batches, self.program.recipe.accumulate)

    def guarded(self, steps: int | None, schedule_end: ScheduleEnd) -> Plan:
        """Return the plan with programs that refuse an unforeseen learning rate of zero."""
        program = guarded(self.program, steps, schedule_end)
        donating = guarded(self.donating, steps, schedule_end)
        return attrs.evolve(self, program=program, donating=donating)

    def due(
        self, before: Position, after: Position, ends_epoch: bool, last: bool
    ) -> dict[str, Any] | None:
        """Return what is due after a step, as a checkpoint holds it; ``None`` for nothing.

        Args:
            before: the position before the step.
            after: the position after it.
            ends_epoch: whether the step was the last of its epoch.
            last: whether the run ends here.
        """
        evaluate = self.evaluations.due(before, after, last)
        save = due(self.save_every, before, after) or last
        if not (ends_epoch or evaluate or save):
            return None
        return {"epoch_end": ends_epoch, "evaluate": evaluate, "save": save, "row": None}
