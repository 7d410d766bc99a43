"""The device part of a step of all members: ``vmap`` over the step of one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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

T = TypeVar("T")

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
    """Whether a step or an evaluation was seen to draw random numbers.

    The mode that draws by member sees every operation, and costs as much as all of them. So it is
    off until something draws, which ``vmap`` then refuses, and on from then on.
    """

    draws: bool = False


def draw_by_member(take: Callable[..., T], streams: Streams, seen: Seen) -> T:
    """Call a pure function of all members; it is called again if it draws for the first time."""
    if not seen.draws:
        try:
            return take(randomness="error")
        except UnseenDrawError:
            seen.draws = True
    with MemberDraws(streams):
        return take(randomness="different")


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
        # The host selects the members whose update is applied: mostly all of them.
        kernels = KERNELS._replace(finite=lambda recipe, outputs: True)
        take = functools.partial(
            take_steps, self.fixed, self.own_batches, state, inputs, ema_due, seed, kernels
        )
        new, outputs = draw_by_member(take, streams, self.seen)
        if self.fixed.recipe.can_skip:
            new = _select(outputs, new, state)
        if donation is not None:
            donation.take()
        return new, outputs


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
