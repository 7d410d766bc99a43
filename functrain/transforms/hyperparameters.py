"""Hyperparameters of a program by path: what a population varies, or a gradient reaches.

The names are those of the optimizer's fields: ``"weight_decay"``, and in groups ``"1.betas"``. A
wrapper's own fields and those of the optimizer in it are on one level; where both have a name, the
inner one is ``"optimizer.eps"``. A schedule's fields follow its rate, as ``"lr.end"``. Then there
are ``"clip_norm"``, ``"clip_value"`` and ``"ema"``, the decay of the average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core import learning_rate, step
from functrain.core.ema import EMA, Average
from functrain.core.optimizer import Optimizer
from functrain.core.program import Program
from functrain.core.recipe import Recipe, StaticParts
from functrain.core.schedule import Schedule
from functrain.errors import ConfigurationError
from functrain.errors.nearest import nearest
from functrain.optim.groups import Groups

Location = tuple[str, ...]


@attrs.frozen
class Hyperparameter:
    """A number of a recipe that can be another one without changing what a step computes.

    Attributes:
        path: its name, for people.
        location: attributes from the recipe to it; a member of groups by its name.
        value: at present; a pair where the field is one, ``None`` where it is left out.
        is_rate: whether it is a learning rate or a part of a schedule, which the host evaluates;
            the others may be tensors.
    """

    path: str
    location: Location
    value: Any
    is_rate: bool = False


def hyperparameters(recipe: Recipe) -> dict[str, Hyperparameter]:
    """Return the hyperparameters of a program's recipe by path.

    Example:
        >>> import functrain as ft
        >>> loss = lambda model, batch: model(batch).square().mean()
        >>> optimizer = ft.optim.SGD(lr=ft.schedules.Linear(0.1), momentum=0.9)
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, optimizer, ema=0.99)
        >>> found = hyperparameters(program.recipe)
        >>> {path: found[path].value for path in ("lr.lr", "momentum", "clip_norm", "ema")}
        {'lr.lr': 0.1, 'momentum': 0.9, 'clip_norm': None, 'ema': 0.99}
    """
    decay = recipe.ema.decay if isinstance(recipe.ema, EMA) else None
    return {
        **{found.path: found for found in _of_optimizer(recipe.optimizer, "", ("optimizer",))},
        "clip_norm": Hyperparameter("clip_norm", ("clip_norm",), recipe.clip_norm),
        "clip_value": Hyperparameter("clip_value", ("clip_value",), recipe.clip_value),
        "ema": Hyperparameter("ema", ("ema",), decay),
    }


def find(recipe: Recipe, path: str) -> Hyperparameter:
    """Return one hyperparameter."""
    found = hyperparameters(recipe)
    if path in found:
        return found[path]
    expected = f"expected one of {', '.join(found)}"
    raise ConfigurationError(
        f"hyperparameter {path!r}: {expected}{nearest(path, found)}. Integers, flags and what "
        "decides which operations a step makes cannot vary within one program"
    )


def replaced(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other hyperparameters."""
    known = hyperparameters(recipe)
    for path, value in values.items():
        location = known[path].location if path in known else find(recipe, path).location
        recipe = _with(recipe, location, value)
    return recipe


def check(recipe: Recipe, hyperparameter: Hyperparameter, value: Any) -> None:
    """Check a value by the validator of its field.

    Unlike :func:`replaced`, this ignores how hyperparameters depend on each other, as where zero
    leaves out a term.
    """
    node: Any = recipe
    *path, name = hyperparameter.location
    for key in path:
        node = dict(node)[key] if isinstance(node, tuple) else getattr(node, key)
    if name == "ema":
        if value is None or isinstance(value, Average):
            return
        node, name = EMA(), "decay"
    field = attrs.fields_dict(type(node))[name]
    if field.validator is not None:
        field.validator(node, field, value)


def with_recipe(program: Program, recipe: Recipe) -> Program:
    """Return an eager program with another recipe, for the same module."""
    fixed = StaticParts(recipe, program.fixed.model, program.fixed.trainable)
    schedules = learning_rate.schedules(recipe.optimizer)
    return attrs.evolve(program, fixed=fixed, schedules=schedules, device_step=step.eager(fixed))


def _of_optimizer(
    optimizer: Any, prefix: str, location: Location, taken: frozenset[str] = frozenset()
) -> Iterator[Hyperparameter]:
    """Yield those of an optimizer; names that a wrapper around it has need a prefix."""
    if isinstance(optimizer, Groups):
        for name, member in optimizer.members:
            yield from _of_optimizer(member, f"{prefix}{name}.", (*location, "members", name))
        return
    own = set()
    for field in attrs.fields(type(optimizer)) if attrs.has(type(optimizer)) else ():
        value, name = getattr(optimizer, field.name), field.name
        inside = f"{prefix}optimizer." if name in taken else prefix
        if name == "lr":
            yield Hyperparameter(f"{inside}lr", (*location, name), value, is_rate=True)
            yield from _of_schedule(value, f"{inside}lr.", (*location, name))
        elif _may_be_tensor(optimizer, field, value):
            own.add(name)
            yield Hyperparameter(f"{inside}{name}", (*location, name), value)
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, Optimizer):
        yield from _of_optimizer(inner, prefix, (*location, "optimizer"), taken | own)


def _of_schedule(schedule: Any, prefix: str, location: Location) -> Iterator[Hyperparameter]:
    cls: type = type(schedule)
    for field in attrs.fields(cls) if isinstance(schedule, Schedule) and attrs.has(cls) else ():
        value, place = getattr(schedule, field.name), (*location, field.name)
        path = f"{prefix}{field.alias}"
        if type(value) in (int, float):
            yield Hyperparameter(path, place, value, is_rate=True)
        yield from _of_schedule(value, f"{path}.", place)


def _may_be_tensor(optimizer: Any, field: attrs.Attribute[Any], value: Any) -> bool:
    """Return whether a field holds numbers, and accepts tensors in their place."""
    parts = value if isinstance(value, tuple) else (value,)
    numbers = [one for one in parts if type(one) in (int, float) or isinstance(one, Tensor)]
    if not numbers or len(numbers) + parts.count(None) < len(parts):
        return False
    tensors = tuple(torch.tensor(one) if type(one) in (int, float) else one for one in parts)
    if field.validator is None:
        return "Tensor" in str(field.type)
    try:
        field.validator(optimizer, field, tensors if isinstance(value, tuple) else tensors[0])
    except ConfigurationError:
        return False
    return True


def _with(node: Any, location: Location, value: Any) -> Any:
    """Return a frozen value with another one at a location in it."""
    name, *rest = location
    if name == "ema":
        return attrs.evolve(node, ema=_with_decay(node.ema, value))
    if name == "members":
        member, below = rest[0], tuple(rest[1:])
        pairs = [(n, _with(m, below, value) if n == member else m) for n, m in node.members]
        return attrs.evolve(node, members=tuple(pairs))
    alias = attrs.fields_dict(type(node))[name].alias or name
    return attrs.evolve(
        node, **{alias: _with(getattr(node, name), tuple(rest), value) if rest else value}
    )


def _with_decay(average: Average | None, value: Any) -> Any:
    if average is None or value is None or isinstance(value, Average):
        return value
    if not isinstance(average, EMA):
        raise ConfigurationError(
            "hyperparameter 'ema' is the decay of functrain.EMA: expected a program with an EMA "
            f"or without an average, got {average!r}. Leave 'ema' out, or take an EMA"
        )
    return attrs.evolve(average, decay=value)


def refuse_gradient_hooks(fixed: StaticParts, caller: str, remedy: str) -> None:
    """Refuse a model with hooks on the gradients of trained parameters or of modules."""
    trained = [f"parameter {path}" for path in fixed.model.hooks if path in fixed.trainable]
    modules = [
        f"module {path or type(module).__name__}"
        for path, module in fixed.model.module.named_modules()
        if module._backward_hooks or module._backward_pre_hooks
    ]
    if found := [*trained, *modules]:
        raise ConfigurationError(
            f"{caller} cannot call the gradient hooks of the model ({', '.join(found[:4])}): "
            f"remove them, or {remedy}"
        )
