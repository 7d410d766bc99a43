"""Guards that run once: of a state that no step made, and of what first steps show of user code.

Found in the first steps of a program, and copied or put back from then on (in ``in_place_writes``,
``batch_lending``, ``module_attributes`` and ``global_generators``):

* a forward or a loss that writes to parameters: in place, by ``.data =`` or by assignment; the same
  in evaluations, also of a function that evaluates instead of the loss;
* one that keeps a parameter or a view of it: donated steps then write to copies;
* one that writes to its batch or keeps a part of it: it gets a copy of each batch;
* one that draws from ``random`` or NumPy: both are seeded from then on;
* attributes that a forward fills; with a warning if the next forward reads what one left there;
* parameters outside of the model on which the loss depends: with a warning.

Found at each step: writes to a batch, which are refused, since they changed the caller's; other
buffers than before, new parameters, a loss without a gradient, gradients of another layout,
``backward()`` within the loss, ``torch.seed()``.

Not found, where it begins after the first steps: writes to parameters in place (the old state sees
them), writes to a batch through ``.data`` or NumPy (the caller's changes), parts of parameters or
batches that a loss keeps, what a forward leaves for the next one. First draws are found late, with
a warning: they follow from no state until one step in 128 is watched. ``functrain.checked`` looks
at every step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from functrain import tree
from functrain.core import learning_rate
from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.loss import evaluate
from functrain.core.module_attributes import tables_of
from functrain.core.precision import autocast, is_lending
from functrain.core.recipe import StaticParts
from functrain.core.rng import autocast_kinds, scoped
from functrain.core.state import Tensors, TrainState, fields_of, is_made_for
from functrain.errors import FunctrainWarning, UnsupportedError
from functrain.errors.base import warn
from functrain.tree.containers import tensors
from functrain.tree.torch_internals import (
    is_below_compile,
    is_below_func,
    is_below_vmap,
    is_differentiated,
)


def check(program: Any, state: Any, batch: Batch, is_eager: bool) -> None:
    """Refuse a step that cannot be made; a state that a step of it made was checked already.

    Raises:
        UnsupportedError: it is no state, or of a population; or the call is below
            ``torch.compile``, or a transformation of ``torch.func``.
        ParameterMismatchError: the state is of another program.
    """
    refuse_compile()
    if is_eager and is_below_func():
        refuse_vmap()
        refuse_derivatives("train_step", require_state(state, batch), batch)
    if is_made_for(program.fixed.model, state):
        return
    require_state(state, batch)
    refuse_members(state)
    refuse_other_model(program.fixed, state)
    warn_of_autocast(program.fixed, state.device)
    fields, recipe = fields_of(state), program.recipe
    scaled = recipe.precision == "fp16"
    # An average that stays behind, or no loss scale, would be no error and wrong numbers.
    if (fields["ema"] is None) != (recipe.ema is None) or (fields["loss_scale"] is None) == scaled:
        program.require(state)
    if program.zero_rate == "warn":  # in a run, fit has warned
        with suppress(KeyError):  # of another program's schedules, which the step explains
            learning_rate.warn_of_overruled(program.schedules, state.scheduler)


def require_state(given: Any, batch: object, expected: type = TrainState) -> Any:
    """Return a state, and refuse a value that is not of the class ``expected``."""
    if not isinstance(given, expected):
        from functrain.diagnosis.step_errors import not_a_state

        raise not_a_state(given, batch, expected.__name__)
    return given


def refuse_members(state: TrainState) -> None:
    """Refuse the state of a population, whose tensors would broadcast into numbers of no member."""
    if state.counters.skipped.ndim:
        raise UnsupportedError(
            "expected the state of one program, got that of a population. Take a member out, "
            "pop.member(state, i), for the program of that member, pop.programs[i]; or give the "
            "state to pop.train_step or pop.eval_step"
        )


def refuse_other_model(fixed: StaticParts, state: TrainState) -> None:
    """Refuse parameters of other names or shapes, with which many layers would compute, too."""
    expected, given = fixed.model.params, fields_of(state)["params"]
    found = _shapes(given) if isinstance(given, Mapping) else None
    if found != _shapes(expected):
        from functrain.diagnosis.fitting_state import check_params

        check_params(fixed, state)


def warn_of_autocast(fixed: StaticParts, device: torch.device) -> None:
    """Warn of an autocast around the steps of a program in float32, which has no effect on them."""
    if is_lending.get():  # then it may be that of another program, which is no mistake
        return
    if fixed.recipe.precision == "float32" and autocast_kinds(device):
        warn(
            "torch.autocast is on around train_step and has no effect on it: the program computes "
            'in float32. For mixed precision make it with functrain.program(..., precision="bf16")',
            FunctrainWarning,
        )


def _shapes(params: Mapping[str, Any]) -> dict[str, Any]:
    return {path: getattr(one, "shape", None) for path, one in params.items()}


def refuse_derivatives(called: str, state: TrainState, batch: Batch) -> None:
    """Refuse tensors that ``torch.func`` differentiates: without a graph it would find zeros."""
    if is_below_func() and any(map(is_differentiated, tensors([fields_of(state), batch]))):
        raise UnsupportedError(
            f"{called} was called below torch.func.grad, jacrev or jvp, and its results have no "
            "derivatives. Those of functrain.differentiable(program, {}) have them"
        )


def refuse_compile() -> None:
    """Refuse a step below the user's ``torch.compile``, which compiles functrain's host part.

    Raises:
        UnsupportedError: the step is below one.
    """
    if is_below_compile():
        raise UnsupportedError(
            "train_step was called below torch.compile. functrain.compiled(program).train_step is "
            "one compiled graph: call it from Python that is not compiled"
        )


def refuse_vmap() -> None:
    """Refuse an eager step below ``torch.func.vmap``, where autograd and kernels do not work."""
    if is_below_vmap():
        raise UnsupportedError(
            "train_step was called below torch.func.vmap. Train many states by one step as a "
            "population: pop = functrain.population(program, seeds=[...]); state = "
            "pop.stacked([state, ...]); pop.train_step(state, batch)"
        )


def warn_of_memory(
    fixed: StaticParts, params: Tensors, buffers: Tensors, batch: Batch, device: torch.device
) -> None:
    """Warn of a forward that computes otherwise with what the one before it left in attributes.

    Two are made with the same tensors and random numbers, the second within the first, so that
    nothing is put back between them.
    """
    model, recipe = fixed.model, fixed.recipe
    tables = tables_of(model.module)

    def forward() -> None:
        own = {path: buffer.clone() for path, buffer in buffers.items()}
        bound = model.as_parameters(model.writes.owned(params), fixed.trainable)
        with scoped(0, device), model.bound(bound, own, True):
            found = evaluate(recipe.loss, model.module, copied(batch, device), device)
            values.append(found.value.detach())
            if len(values) < 2:
                forward()

    values: list[Tensor] = []
    with torch.enable_grad(), autocast(recipe.precision, device):
        forward()
    for table in tables:
        table.put_back()
    if not tree.equal(*values):
        model.attributes.warn_of_memory()
    model.attributes.settled |= model.attributes.left
    model.attributes.left = set()
