"""``functrain.program``: from a module, a loss and an optimizer to a program."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import nn

from functrain.core import learning_rate, step
from functrain.core.ema import Average
from functrain.core.global_generators import GeneratorName
from functrain.core.loss import LossFunction
from functrain.core.model import FunctionalModule, functionalize
from functrain.core.optimizer import Optimizer, Params, means
from functrain.core.precision import PrecisionName
from functrain.core.program import Program
from functrain.core.recipe import Nonfinite, Recipe, StaticParts, Trainable, refuse_gradients
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.errors.nearest import nearest


@explained
def program(
    model: nn.Module | Callable[[], nn.Module],
    loss: LossFunction,
    optimizer: Optimizer,
    *,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    accumulate: int = 1,
    precision: PrecisionName = "float32",
    ema: Average | float | None = None,
    nonfinite: Nonfinite = "raise",
    trainable: Trainable | None = None,
    evaluate: LossFunction | None = None,
    eval_gradients: bool = False,
    detect_anomaly: bool = False,
    random: GeneratorName | Sequence[GeneratorName] = (),
) -> Program:
    """Make a program from a module, a loss and an optimizer.

    Args:
        model: a module, which steps borrow and whose present values are copied; or a callable that
            makes one, and then initial values are a function of ``init``'s seed.
        loss: ``loss(model, batch)``, written as in ordinary PyTorch; returns a scalar tensor or a
            :class:`functrain.Loss`.
        optimizer: one of ``functrain.optim``; it owns the learning-rate schedule.
        clip_norm: scale gradients so that their common 2-norm is at most this.
        clip_value: clamp each gradient element to plus or minus this.
        accumulate: micro-batches in a step; their gradients are averaged by weight.
        precision: ``"float32"``, or autocast to ``"bf16"`` or ``"fp16"`` (with a loss scale); also
            ``"bfloat16"`` and ``"float16"``.
        ema: an :class:`EMA`, its decay, or an :class:`SWA`; ``None`` keeps no average.
        nonfinite: what a step with NaN or infinite loss or gradients does: ``"raise"``,
            ``"skip"`` (leaves the weights and counts it, without waiting for the device) or
            ``"ignore"``.
        trainable: glob patterns or a predicate (path, tensor) of the parameters to train; by
            default those with ``requires_grad``.
        evaluate: used by ``eval_step`` instead of ``loss``.
        eval_gradients: evaluate with gradients from the start, for a loss or a model that
            differentiates by itself; without it, an evaluation that fails for want of gradients is
            repeated with them.
        detect_anomaly: repeat a step with NaN or infinite loss or gradients, and name the module,
            the operation and the line where the first such value is from: in the
            :class:`NonFiniteError`, or in a warning. Every step waits for the device, and a
            donated one copies.
        random: ``"python"``, ``"numpy"`` or both: seed the generators of ``random`` and
            ``numpy.random`` in each step, as torch's are. Without it those are seeded that the
            first steps draw from.

    Returns:
        The program.

    Raises:
        ConfigurationError: a value is invalid, the loss takes predictions and targets instead of
            (model, batch), or it is a module with parameters of its own, which would not be
            trained; or ``clip_value`` is given for complex parameters.
        ModelError: the model cannot be used.

    Example:
        >>> import functrain as ft
        >>> loss = lambda model, batch: (model(batch) ** 2).mean()
        >>> ft.program(nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1), clip_norm=1.0).recipe.clip_norm
        1.0
    """
    for function in (loss, evaluate):
        _refuse_criterion(function)
        _refuse_own_parameters(function)
    taken = functionalize(model)
    recipe = Recipe(
        model=type(taken.module).__qualname__,
        loss=loss,
        optimizer=optimizer,
        clip_norm=clip_norm,
        clip_value=clip_value,
        accumulate=accumulate,
        precision=precision,
        ema=ema,
        nonfinite=nonfinite,
        trainable=trainable,
        evaluate=evaluate,
        eval_gradients=eval_gradients,
        detect_anomaly=detect_anomaly,
        random=random,
    )
    refuse_gradients(recipe)
    recipe = attrs.evolve(recipe, optimizer=optimizer.bind(taken.named_params))
    fixed = StaticParts(recipe, taken, _trainable(taken, recipe))
    _refuse_complex(fixed)
    return Program(fixed, learning_rate.schedules(recipe.optimizer), step.eager(fixed))


def _refuse_own_parameters(loss: LossFunction | None) -> None:
    """Refuse a loss with parameters: they are not in the state, so they would stay as they are."""
    if not isinstance(loss, nn.Module):
        return
    own = [path for path, parameter in loss.named_parameters() if parameter.requires_grad]
    if own:
        raise ConfigurationError(
            f"the loss is a {type(loss).__qualname__} with parameters of its own, {own[:8]}, which "
            "would not be trained. Make them a part of the model, nn.ModuleDict({'net': net, "
            "'loss': loss}), and use them from there; or freeze them: loss.requires_grad_(False)"
        )


def _trainable(taken: FunctionalModule, recipe: Recipe) -> list[str]:
    asked, params = recipe.trainable, taken.named_params
    wanted = [
        path
        for path in params
        if (path in taken.requires_grad if asked is None else means(asked, path, params))
    ]
    if not wanted:
        raise ConfigurationError(
            "no parameter is trainable: "
            + ("none has requires_grad=True" if asked is None else f"nothing matches {asked!r}")
            + f"; the parameters are {list(taken.params)[:8]}"
            + ("" if taken.params else ". Make layers attributes of the module, in nn.ModuleList")
        )
    _check_used(asked, params)
    not_frozen = set(recipe.optimizer.trained(params))
    trained = [path for path in wanted if path in not_frozen]
    if not trained:
        raise ConfigurationError(
            "no parameter is trainable: the optimizer's groups freeze every one of those that "
            f"could be: {wanted[:8]}"
        )
    return trained


def _refuse_complex(fixed: StaticParts) -> None:
    """Refuse to clip by value what has no order; torch fails in ``clip_grad_value_``, too."""
    of = [path for path in fixed.trainable if fixed.model.params[path].is_complex()]
    if of and fixed.recipe.clip_value is not None:
        raise ConfigurationError(
            f"clip_value: the trained parameters {of[:8]} are complex, and complex numbers have no "
            "order by which torch could clamp them. Use clip_norm, or keep the parameters as real "
            "numbers, torch.view_as_real(parameter), and compute with torch.view_as_complex"
        )


def _check_used(asked: Trainable | None, params: Params) -> None:
    """Refuse a misspelt name among several patterns, which would leave its part untrained."""
    for pattern in () if asked is None or isinstance(asked, str) or callable(asked) else asked:
        if not any(means(pattern, path, params) for path in params):
            raise ConfigurationError(
                f"trainable: pattern {pattern!r} matches none of the {len(params)} "
                f"parameters{nearest(pattern, params)}"
            )


# How the first argument begins where predictions are compared with targets.
_PREDICTIONS = (
    *("input", "output", "pred", "logit", "log_", "anchor"),
    *("y_pred", "y_hat", "yhat", "y_true"),
)


def _refuse_criterion(function: Any) -> None:
    """Refuse ``nn.CrossEntropyLoss()`` and its like where ``loss(model, batch)`` is expected."""
    is_class = isinstance(function, type) and issubclass(function, nn.Module)
    called = function.forward if is_class or isinstance(function, nn.Module) else function
    try:
        names = list(inspect.signature(called).parameters)[is_class:]  # without self
    except (TypeError, ValueError):  # some builtins have no signature
        return
    if names and names[0].startswith(_PREDICTIONS):
        from functrain.diagnosis.loss_errors import explain_criterion

        raise explain_criterion(function, names)
