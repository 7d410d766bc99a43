"""Members whose loss or gradients were not finite, each looked into by a step of its own."""

from __future__ import annotations

from functrain.core import nonfinite
from functrain.core.batch import Batch
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.core.step import Outputs
from functrain.populations import states
from functrain.populations.batches import Batches, view

# So many members are looked into in one step.
_SHOWN = 4


def located(
    programs: list[Program], batches: Batches, state: TrainState, batch: Batch, members: list[int]
) -> list[str]:
    """Repeat the step of each of some members alone, and say where its first NaN is from."""
    own = [view(batch, member) if batches == "own" else batch for member in members]
    pairs = zip(members, own, strict=True)
    return [programs[i].anomaly(states.member(state, i), given) for i, given in pairs]


def warn_of(
    outputs: Outputs, programs: list[Program], batches: Batches, state: TrainState, batch: Batch
) -> None:
    """Name members whose loss or gradients were not finite, and where that began."""
    from functrain.diagnosis.nonfinite_steps import warn_of as warn

    shown = (~nonfinite.finite(outputs)).nonzero().flatten().tolist()[:_SHOWN]
    places = located(programs, batches, state, batch, shown)
    for member, place in zip(shown, places, strict=True):
        own = {name: outputs[name][member] for name in ("loss", "grad_norm")}
        warn(state.counters.step, own, place, f" of member {member}")
