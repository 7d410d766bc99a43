"""Wrap a program so that it checks the purity of each of its steps."""

from __future__ import annotations

import copy as python
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, overload

import attrs

from functrain.core.batch import Batch
from functrain.core.program import Program
from functrain.core.protocol import AnyProgram
from functrain.core.recipe import StaticParts
from functrain.core.state import Donation
from functrain.core.step import AnyDeviceStep, DeviceState, Outputs
from functrain.own_steps.program import OwnProgram
from functrain.testing.module_attributes import (
    ModuleAttributes,
    try_other_batches,
    unchanged,
    without,
)
from functrain.testing.observed_calls import (
    Call,
    refuse,
    repeat_call,
    repeat_twice,
    repeat_with_other_generators,
    shared,
    watch_call,
)
from functrain.testing.purity import may_share
from functrain.tree.nodes import copy

_SUBJECT = "the device part of this step"


@overload
def checked(program: Program) -> Program: ...
@overload
def checked(program: AnyProgram) -> AnyProgram: ...
def checked(program: Any) -> Any:
    """Return a program that checks at every step that its device part is pure.

    Each step runs three times, the last with the global random generators in another state, and
    once more with donation, so it takes four times as long. A step of a user's own may not write
    to its state, through ``.data`` and ``.numpy()`` either, which steps themselves cannot see. Use
    it to find an impure step, also
    under ``fit``. :func:`functrain.testing.check_pure` lists the comparisons. Results are the same.

    Args:
        program: any program, including donated or compiled ones. Apply this last, or before
            ``donated``.

    Returns:
        The checking program. Its ``train_step`` raises :class:`functrain.errors.ImpurityError`.

    Example:
        >>> import functrain as ft, torch
        >>> seen = []
        >>> def loss(model, batch):
        ...     seen.append(batch)
        ...     return model(batch).square().mean() * len(seen)
        >>> program = ft.checked(ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1)))
        >>> program.train_step(program.init(), torch.ones(4, 2))
        Traceback (most recent call last):
        functrain.errors.ImpurityError: the device part of this step is not pure:
          new_state.params['weight'] differs between two calls: ...
    """
    made = program.map_leaves(
        lambda one: attrs.evolve(one, device_step=Checked(one.device_step, one.fixed))
    )
    if isinstance(made, OwnProgram):
        return attrs.evolve(made, step=checked_step(made.step))
    return made


def checked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step of the user that runs three times and compares; programs may come first."""

    @functools.wraps(step)
    def call(*given: Any) -> Any:
        *before, state, batch, rng = given
        begun = rng.get_state()

        def calling(state: Any) -> dict[str, Any]:
            rng.set_state(begun)
            new, metrics = step(*before, state, python.deepcopy(batch), rng)
            return {"new_state": new, "metrics": metrics}

        spares = [copy(state) for _ in range(3)]
        first = watch_call(lambda: calling(spares[0]), _kept(before, spares[0]))
        once, twice = (functools.partial(calling, spare) for spare in spares[1:])
        refuse("this step", first.findings + repeat_twice(first, once, twice))
        rng.set_state(begun)
        return step(*before, state, batch, rng)

    return call


def _kept(before: list[Any], state: Any) -> dict[str, Any]:
    """Return the parts of a state by name that a step must not write to, by ``.data`` either."""
    if not before:
        return {"state.tree": state}
    (programs,) = before
    each = ((name, one) for name, one in state.items() if not programs[name].donates)
    return {f"state.{name}": one for name, one in each}


@attrs.frozen(eq=False, repr=False)
class Checked:
    """A device step that runs each step of another one several times and compares."""

    device_step: AnyDeviceStep
    fixed: StaticParts

    @property
    def description(self) -> str:
        """The identity of the checked device step: the results are the same."""
        return str(getattr(self.device_step, "description", "eager"))

    def __call__(
        self,
        state: DeviceState,
        batches: list[Batch],
        lr: Any,
        ema_due: bool,
        donation: Donation | None = None,
        seed: int | None = None,
    ) -> tuple[DeviceState, Outputs]:
        """See :class:`functrain.core.step.AnyDeviceStep`."""

        def call(state: DeviceState, donation: Donation | None = None) -> dict[str, Any]:
            after, outputs = self.device_step(state, batches, lr, ema_due, donation, seed)
            return {"new_state": SimpleNamespace(**after), "outputs": outputs}

        def another(batches: list[Batch]) -> None:
            other = None if seed is None else seed + 1
            self.device_step(copy(state), batches, lr, ema_due, None, other)

        spare, attributes = copy(state), ModuleAttributes.of(self.fixed.model.module)
        first = self._checked_pure(call, state, batches)
        filled = attributes.changed()
        attributes.restore()
        tried = try_other_batches(another, batches, attributes)
        findings = repeat_call(first, lambda: call(spare))
        alike = unchanged(attributes, filled) if tried else set()
        first = attrs.evolve(first, findings=without(first.findings, alike))
        if not findings and seed is not None:
            findings = repeat_with_other_generators(first, lambda: call(spare))
        refuse(_SUBJECT, first.findings + findings)
        if donation is None:
            return _results(first)
        donated = watch_call(lambda: call(state, donation), {"batches": batches})
        same = repeat_call(donated, lambda: call(spare), "is another with donation than without")
        refuse(_SUBJECT, donated.findings + same)
        return _results(donated)

    def _checked_pure(self, call: Any, state: DeviceState, batches: list[Batch]) -> Call:
        """Make one call without donation and check what it changed or shares."""
        module = self.fixed.model.module
        watched = {"state": SimpleNamespace(**state), "batches": batches, "module": module}
        first = watch_call(lambda: call(state), watched, lambda place: place.endswith(".training"))
        rejected = not bool(first.result["outputs"].get("finite", True))
        new, outputs = ({name: first.result[name]} for name in ("new_state", "outputs"))
        aliased = shared(new, watched, may_share(self.fixed, rejected))
        aliased += shared(outputs, {**watched, **new})
        return attrs.evolve(first, findings=first.findings + aliased)


def _results(call: Call) -> tuple[DeviceState, Outputs]:
    return vars(call.result["new_state"]), call.result["outputs"]
