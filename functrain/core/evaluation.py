"""Evaluate a state: lend the module with its weights, and compute loss and metrics of a batch.

A state is only read here. The module that is lent has the tensors of the state, so every block
that it is lent to is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from functrain.core import precision
from functrain.core.batch import Batch
from functrain.core.batch_lending import copied
from functrain.core.batch_splitting import MicroBatches
from functrain.core.loss import LossOutput, evaluate
from functrain.core.recipe import StaticParts
from functrain.core.rng import refuse_system_seed, scoped, without_autocast
from functrain.core.state import Tensors, TrainState, fields_of, lend
from functrain.errors import ConfigurationError, ImpurityError, UnsupportedError
from functrain.tree.torch_internals import is_below_func


def loss_output(fixed: StaticParts, state: TrainState, batch: Batch, weights: str) -> LossOutput:
    """Return loss and metrics; see :meth:`functrain.Program.eval_step`."""
    if isinstance(batch, MicroBatches):
        raise UnsupportedError(
            "eval_step: expected one batch, got MicroBatches; functrain.evaluate(program, state, "
            "[batch, ...]) averages over several"
        )
    gradients = fixed.recipe.eval_gradients
    try:
        return _loss_output(fixed, state, batch, weights, gradients)
    except Exception as error:
        from functrain.diagnosis.backward_errors import needs_gradients
        from functrain.diagnosis.forward_errors import explain_forward

        if not needs_gradients(error):
            explain_forward(error, fixed.model.module, "in an evaluation", batch)
            raise
    # The loss differentiates by itself. Nothing was changed, so it is begun again.
    return _loss_output(fixed, state, batch, weights, gradients=True)


def _loss_output(
    fixed: StaticParts, state: TrainState, batch: Batch, weights: str, gradients: bool
) -> LossOutput:
    device, function = state.device, fixed.recipe.evaluate or fixed.recipe.loss
    seen, stream = fixed.evaluations, evaluation_stream(state)
    with _lending(fixed, state, weights) as lent:
        watched = set() if is_below_func() else seen.writes.suspects(lent, fixed.trainable)
        params = fixed.model.writes.owned(seen.writes.owned(lent, watched))
        buffers = {path: tensor.clone() for path, tensor in fields_of(state)["buffers"].items()}
        # Not named, since settled() below asks whether anybody keeps their memory.
        as_parameters, trained = fixed.model.as_parameters, fixed.trainable if gradients else ()
        with (
            torch.set_grad_enabled(gradients),
            scoped(stream, device, draws=seen.draws),
            precision.autocast(fixed.recipe.precision, device),
            fixed.model.bound(as_parameters(params, trained), buffers, False) as module,
        ):

            def computing() -> LossOutput:
                return evaluate(function, module, copied(batch, device), device)

            found = computing()
            refuse_system_seed(stream, computing)
        found = found._replace(value=found.value.detach().clone())
        if watched:
            seen.writes.settled(lent, params, watched, by_values=False)
        if seen.writes.kept:
            lend(state)
    return found


@contextmanager
def evaluating(
    fixed: StaticParts, state: TrainState, weights: str, gradients: bool
) -> Iterator[nn.Module]:
    """Lend a module of its own, which the block may keep; see ``Program.evaluating``."""
    model = fixed.model
    with _lending(fixed, lend(state), weights) as lent:
        params = fixed.evaluations.writes.owned(model.writes.owned(lent))
        with (
            torch.set_grad_enabled(gradients),
            # The user's block may wait for other threads.
            scoped(evaluation_stream(state), state.device, alone=False),
            precision.autocast(fixed.recipe.precision, state.device),
        ):
            trained = fixed.trainable if gradients else ()
            yield model.lent(params, fields_of(state)["buffers"], False, trained)


@contextmanager
def module(
    fixed: StaticParts, state: TrainState, weights: str, gradients: bool, training: bool
) -> Iterator[nn.Module]:
    """Lend a module for a loss of another program; see :meth:`functrain.Program.module`."""
    differentiated, state = fixed.trainable if gradients else (), lend(state)
    with (
        _lending(fixed, state, weights) as lent,
        without_autocast(state.device),
        precision.autocast(fixed.recipe.precision, state.device),
    ):
        own = {**lent, **{path: lent[path].clone() for path in differentiated}}
        yield fixed.model.lent(own, state.buffers, training, differentiated)


@contextmanager
def _lending(fixed: StaticParts, state: TrainState, weights: str) -> Iterator[Tensors]:
    """Lend the weights of a state to a block."""
    lent = weights_of(fixed, state, weights)
    before = {path: one._version for path, one in lent.items() if not one.is_inference()}
    outside = precision.is_lending.get()
    precision.is_lending.set(True)
    try:
        yield lent
    finally:
        precision.is_lending.set(outside)
    if found := [path for path, version in before.items() if lent[path]._version != version]:
        raise ImpurityError(
            "the block to which a module was lent",
            [
                f"state.{weights}.{path} was changed in place: compute another tensor, x + y "
                "instead of x += y or x.add_(y)"
                for path in found
            ],
            "The module has the tensors of the state; copy.deepcopy(module) has its own.",
        )


def weights_of(fixed: StaticParts, state: TrainState, weights: str) -> Tensors:
    """Return the parameters that an evaluation uses."""
    fields = fields_of(state)
    params, ema = fields["params"], fields["ema"]
    if weights == "params":
        trained = {path: params[path] for path in fixed.trainable}
        return {**params, **fixed.recipe.optimizer.eval_params(fields["optimizer"], trained)}
    if weights != "ema":
        raise ConfigurationError(f'weights: expected "params" or "ema", got {weights!r}')
    if ema is None:
        raise ConfigurationError(
            'weights="ema" was asked for, but the program keeps no average; make it with '
            "functrain.program(..., ema=0.999)"
        )
    averages = {path: value.to(params[path].dtype) for path, value in ema["params"].items()}
    return {**params, **averages}


def evaluation_stream(state: TrainState) -> int:
    """Return the seed of the random stream in which a state is evaluated."""
    return state.rng.stream("evaluate", state.counters.step)
