"""The recipe: everything about a program that never changes, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

import attrs
from torch import Tensor, nn

from functrain.core.batch_lending import BatchLending
from functrain.core.ema import EMA, Average
from functrain.core.global_generators import Draws, GeneratorName
from functrain.core.in_place_writes import InPlaceWrites
from functrain.core.loss import LossFunction
from functrain.core.model import FunctionalModule
from functrain.core.optimizer import Optimizer
from functrain.core.precision import Precision, as_precision
from functrain.errors import ConfigurationError
from functrain.errors.nearest import named
from functrain.errors.validators import Validator, integer, number, one_of, optional, plain

Trainable = str | Sequence[str] | Callable[[str, Tensor], bool]
Nonfinite: TypeAlias = Literal["raise", "skip", "ignore"]
"""What a step with a loss or gradients that are not finite does."""


def _as_average(value: Average | float | Tensor | None) -> Average | None:
    value = plain(value)
    if isinstance(value, int | float | Tensor) and not isinstance(value, bool):
        return EMA(value)
    if value is not None and not isinstance(value, Average):
        raise ConfigurationError(
            f"ema: expected a decay such as 0.999, functrain.EMA(...), functrain.SWA(...) or "
            f"None, got {value!r}"
        )
    return value


def _named(validator: Validator) -> Callable[[Recipe, attrs.Attribute[Any], Any], None]:
    """Check a field under its name as an argument of ``functrain.program``."""
    return lambda _, attribute, value: validator.check(attribute.name, value)


def _callable(_: Recipe, attribute: attrs.Attribute[Any], value: object) -> None:
    is_left_out = value is None and attribute.default is None
    if not is_left_out and not callable(value):
        raise ConfigurationError(
            f"{attribute.name}: expected a function (model, batch), got {value!r}"
        )


def _optimizer(_: Recipe, attribute: attrs.Attribute[Any], value: object) -> None:
    methods = ("init", "update", "update_")
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in methods):
        kind = type(value)
        plain = isinstance(value, type | str | None)
        got = repr(value) if plain else f"a {kind.__module__}.{kind.__qualname__}"
        raise ConfigurationError(
            f"optimizer: expected one of functrain.optim, got {got}. Write "
            "functrain.optim.AdamW(lr=1e-3), or functrain.optim.from_torch(torch.optim.X, lr=1e-3)."
        )


def _names(value: object) -> tuple[GeneratorName, ...]:
    names = (value,) if isinstance(value, str) else tuple(cast(Iterable[Any], value))
    for name in names:
        one_of(GeneratorName).check("random", name)
    return names


class GradientTransform(Protocol):
    """A change to how gradients are taken, such as that of ``sharpness_aware``."""

    def around(self, gradient: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a function that takes gradients by ``gradient``; see ``core/gradients.py``."""
        ...


_CLIP = _named(optional(number(above=0, finite=False, tensors=True)))


@attrs.frozen(eq=False, kw_only=True)
class Recipe:
    """The arguments that a program was built from.

    Attributes:
        model: the class name of the module, for people.
        loss: ``loss(model, batch)`` returning a scalar tensor or :class:`functrain.Loss`.
        optimizer: hyperparameters and rule; owns the learning-rate schedule.
        ema: how weights are averaged, or ``None``.
        trainable: patterns or a predicate of paths to train; ``None`` asks ``requires_grad``.
        evaluate: used by ``eval_step`` instead of ``loss``, or ``None``.
        eval_gradients: whether evaluations run with gradients from the start.
        detect_anomaly: whether to find the operation in which a NaN or infinity appeared first.
        sharpness: how ``sharpness_aware`` takes gradients, or ``None``.
        parts: into how many parts ``sharded`` cuts each batch; 0 in a program for one process.
        buffers: how ``sharded`` combines buffers over the parts, by pattern.
        random: the generators of Python and NumPy that each step seeds.
    """

    model: str
    loss: LossFunction = attrs.field(validator=_callable)
    optimizer: Optimizer = attrs.field(validator=_optimizer)
    clip_norm: float | Tensor | None = attrs.field(default=None, validator=_CLIP)
    clip_value: float | Tensor | None = attrs.field(default=None, validator=_CLIP)
    accumulate: int = attrs.field(default=1, converter=plain, validator=_named(integer(minimum=1)))
    precision: Precision = attrs.field(default="float32", converter=as_precision)
    ema: Average | None = attrs.field(default=None, converter=_as_average)
    nonfinite: Nonfinite = attrs.field(default="raise", validator=_named(one_of(Nonfinite)))
    trainable: Trainable | None = None
    evaluate: LossFunction | None = attrs.field(default=None, validator=_callable)
    eval_gradients: bool = attrs.field(default=False, validator=_named(one_of(True, False)))
    detect_anomaly: bool = attrs.field(default=False, validator=_named(one_of(True, False)))
    sharpness: GradientTransform | None = None
    parts: int = 0
    buffers: Mapping[str, str] = attrs.field(factory=dict)
    random: tuple[GeneratorName, ...] = attrs.field(default=(), converter=_names)

    @property
    def can_skip(self) -> bool:
        """Whether a step may leave the weights as they were."""
        return self.nonfinite != "ignore" or self.precision == "fp16"

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for people."""
        also = ["detect_anomaly"] if self.detect_anomaly else []
        return [(name, named(getattr(self, name))) for name in [*self._shown(), *also]]

    def describe(self) -> dict[str, Any]:
        """Return the recipe as plain data: what a checkpoint says it was made with.

        Functions and classes are there by their names.
        """
        return {name: plain_data(getattr(self, name)) for name in self._shown()}

    def _shown(self) -> list[str]:
        hidden = {"detect_anomaly"}  # which changes no result
        hidden |= set() if self.eval_gradients else {"eval_gradients"}
        hidden |= set() if self.parts else {"parts", "buffers"}
        hidden |= set() if self.random else {"random"}
        return [field.name for field in attrs.fields(Recipe) if field.name not in hidden]


@attrs.frozen(eq=False)
class Evaluations:
    """The behaviour that the first evaluations of a program showed.

    Attributes:
        draws: the generators of Python and NumPy that they draw from.
        writes: the parameters that they write to or keep.
    """

    draws: Draws
    writes: InPlaceWrites = attrs.field(factory=InPlaceWrites)


def _evaluations(fixed: StaticParts) -> Evaluations:
    return Evaluations(Draws(set(fixed.recipe.random)))


_EVALUATIONS: Any = attrs.Factory(_evaluations, takes_self=True)
_DRAWS: Any = attrs.Factory(lambda fixed: Draws(set(fixed.recipe.random)), takes_self=True)


@attrs.frozen(eq=False, repr=False)
class StaticParts:
    """The constants of a device step, in addition to its arguments.

    Attributes:
        draws: the generators of Python and NumPy that steps were seen to draw from.
        evaluations: what was seen of evaluations.
        lending: what the loss does with its batches.
    """

    recipe: Recipe
    model: FunctionalModule
    trainable: list[str]
    draws: Draws = attrs.field(default=_DRAWS)
    evaluations: Evaluations = attrs.field(default=_EVALUATIONS)
    lending: BatchLending = attrs.field(factory=BatchLending)


def refuse_gradients(recipe: Recipe) -> None:
    """Refuse hyperparameters that require gradients, which a plain step would not give them."""
    for name in ("optimizer", "clip_norm", "clip_value", "ema"):
        for path in _requiring_gradients(getattr(recipe, name), name):
            raise ConfigurationError(
                f"{path} is a tensor that requires a gradient, and steps of this program would not "
                "give it one. Make the program with the number, value.item(), and give the tensor "
                "to functrain.differentiable(program, {...})"
            )


def _requiring_gradients(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Tensor):
        yield from [path] if value.requires_grad else []
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _requiring_gradients(child, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for at, child in enumerate(value):
            yield from _requiring_gradients(child, f"{path}[{at}]")
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _requiring_gradients(getattr(value, field.name), f"{path}.{field.name}")


def plain_data(value: Any) -> Any:
    """Return a value as plain data; functions, classes and other objects by their names."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return value.tolist()
    if attrs.has(type(value)) and not isinstance(value, type):
        shown = [f.name for f in attrs.fields(type(value)) if f.repr is not False]
        fields = {name: plain_data(getattr(value, name)) for name in shown}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): plain_data(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(child) for child in value]
    if isinstance(value, nn.Module):
        return type(value).__qualname__
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"
