"""The device part of a step of all members: ``vmap`` over the step of one."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import attrs
from torch import Tensor

from functrain.core import step
from functrain.core.accumulation import step_gradients
from functrain.core.batch import Batch
from functrain.core.recipe import StaticParts
from functrain.core.state import Donation
from functrain.populations.draws import MemberDraws, Streams
from functrain.populations.gradients import of_member
from functrain.populations.members import mapped
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
) -> tuple[step.DeviceState, step.Outputs]:
    """Make one update of every member.

    Hyperparameters of the recipe that differ between members are replaced. Torch's generator gets
    the seed, by which :class:`Streams` knows the part of the step.
    """

    def of_one(
        state: step.DeviceState, batches: list[Batch], lr: Any, hyperparameters: dict[str, Any]
    ) -> Any:
        own = attrs.evolve(fixed, recipe=replaced(fixed.recipe, hyperparameters))
        return step.DeviceStep(KERNELS, own)(state, batches, lr, ema_due, None, seed)

    axes = (0, 0 if own_batches else None, 0, 0)
    after, outputs = mapped(of_one, axes, state, *inputs)
    return after, outputs


@attrs.frozen(eq=False)
class EagerMembers:
    """The device step of a population to which nothing has been applied."""

    fixed: StaticParts
    own_batches: bool

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
        with MemberDraws(streams):
            found = take_steps(self.fixed, self.own_batches, state, inputs, ema_due, seed)
        if donation is not None:
            donation.take()
        return found
