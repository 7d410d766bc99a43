"""The device part of a step of all members: ``vmap`` over the step of one."""

from __future__ import annotations

import contextlib
import functools
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from functrain.core import nonfinite, step
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.recipe import StaticParts
from functrain.core.state import Donation
from functrain.populations.draws import MemberDraws, Streams
from functrain.populations.gradients import of_member
from functrain.populations.members import UnseenDrawError, mapped
from functrain.transforms.hyperparameters import replaced

KERNELS = step.by_rule(functools.partial(step_gradients, of_member))


class Inputs(NamedTuple):
    """The inputs of a step besides the state; tensors of all but the batches are ``[members]``.

    Attributes:
        lr: learning rates, by group where there are groups.
        hyperparameters: by path; a pair where the field is one.
    """

    batches: list[Batch]
    lr: Any
    hyperparameters: dict[str, Any]


def take_steps(
    fixed: StaticParts,
    own_batches: bool,
    state: step.DeviceState,
    inputs: Inputs,
    ema_due: bool | Tensor,
    seed: int,
    kernels: step.Kernels = KERNELS,
    randomness: str = "different",
) -> tuple[step.DeviceState, step.Outputs]:
    """Make one update of every member.

    Hyperparameters of the recipe that differ between members are replaced. Torch's generator gets
    the seed, by which :class:`Streams` knows the part of the step.
    """

    def of_one(
        state: step.DeviceState, batches: list[Batch], lr: Any, hyperparameters: dict[str, Any]
    ) -> Any:
        own = attrs.evolve(fixed, recipe=replaced(fixed.recipe, hyperparameters))
        return step.DeviceStep(kernels, own)(state, batches, lr, ema_due, None, seed)

    axes = (0, 0 if own_batches else None, 0, 0)
    after, outputs = mapped(of_one, axes, state, *inputs, randomness=randomness)
    return after, outputs


@attrs.define(eq=False)
class Seen:
    """Where steps were seen to draw random numbers; ``None`` before the first one.

    The mode that draws by member sees every operation, and costs as much as all of them. So it is
    on in the first step, and afterwards only where a step has drawn.
    """

    forward: bool | None = None
    elsewhere: bool | None = None


@attrs.frozen(eq=False)
class EagerMembers:
    """The device step of a population to which nothing has been applied."""

    fixed: StaticParts
    own_batches: bool
    seen: Seen = attrs.field(factory=Seen, init=False)

    def __call__(
        self,
        state: step.DeviceState,
        inputs: Inputs,
        ema_due: bool,
        donation: Donation | None,
        seed: int,
        streams: Streams,
    ) -> tuple[step.DeviceState, step.Outputs]:
        """Make one update; a donated state is consumed, but its memory is not written to."""
        take = functools.partial(
            take_steps, self.fixed, self.own_batches, state, inputs, ema_due, seed
        )
        try:
            new, outputs = self._draw(take, streams)
        except UnseenDrawError:
            self.seen.forward = self.seen.elsewhere = None
            new, outputs = self._draw(take, streams)
        if self.fixed.recipe.can_skip:
            new = _select(outputs, new, state)
        if donation is not None:
            donation.take()
        return new, outputs

    def _draw(self, take: Any, streams: Streams) -> tuple[step.DeviceState, step.Outputs]:
        """Make the updates, under the mode where that is needed, and note where it has drawn."""
        seen, mode = self.seen, MemberDraws(streams)
        whole, forward = seen.elsewhere is not False, seen.forward is not False
        draws = functools.partial(mode.forward, enters=forward and not whole)
        gradients = functools.partial(of_member, draws=draws)
        kernels = step.by_rule(functools.partial(step_gradients, gradients))
        # The host selects the members whose update is applied: mostly all of them.
        kernels = kernels._replace(finite=lambda recipe, outputs: True)
        with mode if whole else contextlib.nullcontext():
            found: tuple[step.DeviceState, step.Outputs] = take(
                kernels, "different" if whole or forward else "error"
            )
        seen.forward = mode.drew_in_forward or bool(seen.forward)
        seen.elsewhere = mode.drew_elsewhere or bool(seen.elsewhere)
        return found


def _select(
    outputs: step.Outputs, new: step.DeviceState, old: step.DeviceState
) -> step.DeviceState:
    """Return the new state, with the old one of members whose loss or gradients are not finite."""
    finite = outputs["finite"] = nonfinite.finite(outputs)
    if finite.is_cpu and bool(finite.all()):
        return new
    found: step.DeviceState = mapped(
        nonfinite.selected, (0, 0, 0, 0), finite, new, old, outputs["loss"]
    )
    return found
