"""The protocol of optimizers: frozen hyperparameters with a pure rule and a fast kernel."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard, runtime_checkable

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from functrain.tree.nodes import matches

Params: TypeAlias = dict[str, Tensor]
"""Path (``"encoder.0.weight"``) to tensor; gradients and moments have the same shape."""


class NamedParams(dict[str, Tensor]):
    """Parameters by path, and the other names of tied ones, by which patterns find them, too.

    Attributes:
        others: by path.
    """

    def __init__(self, params: Params, others: Mapping[str, Sequence[str]]) -> None:
        super().__init__(params)
        self.others = others


def means(pattern: Any, path: str, params: Params) -> bool:
    """Return whether a pattern means a parameter; see ``matches``.

    Example:
        >>> tied = NamedParams({"embed.weight": torch.ones(2)}, {"embed.weight": ["head.weight"]})
        >>> means("head.*", "embed.weight", tied), means("head.*", "embed.weight", dict(tied))
        (True, False)
    """
    return matches(pattern, path, params[path], getattr(params, "others", {}).get(path, ()))


OptimizerState: TypeAlias = dict[str, Any]
"""Nested dicts of tensors; ``from_torch`` also keeps plain Python values in it."""


# So many other layouts are remembered; then each step checks for itself.
_CHANGES = 16
_TENSOR = frozenset({Tensor})


class KnownLayouts:
    """The layouts of a list of tensors that passed a check last; it never changes an answer.

    Before a kernel walks parameters, gradients and moments side by side, a step checks types,
    dtypes, devices, sizes and strides of them all: ten calls for each parameter, with the same
    answer in nearly every step. Tensors that passed are remembered as torch's compiler remembers
    its inputs, by guards that compare them in C++.

    Example:
        >>> known, two = KnownLayouts(), [torch.zeros(2, 3), torch.zeros(3)]
        >>> known.passes(two, lambda: True), known.passes([torch.ones(2, 3), two[1]], lambda: False)
        (True, True)
        >>> known.passes([two[0].double(), two[1]], lambda: False)
        False
    """

    __slots__ = ("_changes", "_count", "_is_known")

    def __init__(self) -> None:
        self._is_known: Callable[..., bool] = _nothing
        self._count = -1
        self._changes = 0

    def passes(self, tensors: Sequence[Any], check: Callable[[], bool]) -> bool:
        """Return the result of a check, which is called only for other layouts than last.

        ``check`` is a function of types, dtypes, devices, sizes and strides of the tensors only.
        """
        if len(tensors) == self._count and self._is_known(*tensors):
            return True
        if not check():
            return False
        if self._changes < _CHANGES and _TENSOR.issuperset(map(type, tensors)):
            self._changes += 1
            self._is_known, self._count = _guards(tensors), len(tensors)
        return True


def _nothing(*_: Any) -> bool:
    return False


def _guards(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    """Return a function that tells whether tensors have the layouts of these."""
    return _made(tensors) if _guards_compare() else _nothing


def _made(tensors: Sequence[Tensor]) -> Callable[..., bool]:
    guards: Any = torch._C._dynamo.guards.TensorGuards
    check: Callable[..., bool] = guards(
        *tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None
    ).check
    return check


@functools.cache
def _guards_compare() -> bool:
    """Return whether this version of torch has such guards, and they see every difference."""
    like = torch.zeros(2, 2, device="cpu")
    others = (like.t().contiguous().t(), like.double(), like[:1], like.to("meta"), like.to_sparse())
    try:
        is_known = _made([like])
        return is_known(like.clone()) and not any(map(is_known, (*others, None)))
    except (AttributeError, TypeError):
        return False


class StepLayouts:
    """The layouts that are remembered of a model's steps.

    Attributes:
        gradients: of gradients and parameters after the backward pass.
        updated: of the tensors that a kernel walks.
    """

    __slots__ = ("gradients", "updated")

    def __init__(self) -> None:
        self.gradients, self.updated = KnownLayouts(), KnownLayouts()


class PlainGradients(dict[str, Tensor]):
    """Gradients by path that were found to lie in memory as their parameters do.

    Each is strided and contiguous and has the shape of its parameter, which is contiguous too. A
    kernel that walks both side by side need not look again, as it must with any other dict.

    Attributes:
        known: remembers the layouts with which a kernel was run.
    """

    __slots__ = ("_found", "known")

    def __init__(
        self, paths: Iterable[str], tensors: Sequence[Tensor], known: KnownLayouts | None = None
    ) -> None:
        super().__init__(zip(paths, tensors, strict=True))
        self._found = tensors
        self.known = KnownLayouts() if known is None else known

    def are_unchanged(self) -> bool:
        """Return whether these are still the tensors that were found so."""
        return len(self) == len(self._found) and all(map(operator.is_, self.values(), self._found))


pytree.register_pytree_node(
    PlainGradients,
    lambda grads: (list(grads.values()), list(grads)),
    lambda values, paths: dict(zip(paths, values, strict=True)),
    flatten_with_keys_fn=lambda grads: (
        [(pytree.MappingKey(path), grad) for path, grad in grads.items()],
        list(grads),
    ),
    serialized_type_name="functrain.PlainGradients",
)


def are_plain(grads: Params) -> TypeGuard[PlainGradients]:
    """Return whether gradients are known to lie in memory as their parameters do."""
    return type(grads) is PlainGradients and grads.are_unchanged()


TORCH_STATE = frozenset({"state", "shared", "group", "attributes"})
"""Keys of a state that ``from_torch`` made; only the torch optimizer knows what is below them."""

TORCH_MADE_BY = "made by"
"""Key among the attributes of such a state: of which class, and the group it began with."""

LearningRate: TypeAlias = float | Tensor | Callable[[int], float]
"""What a user may write as ``lr``: a number, a tensor without dimensions, or a schedule."""


@runtime_checkable
class Optimizer(Protocol):
    """Hyperparameters and the two forms of one update.

    `update` is the rule: a pure function, fit for ``torch.func`` and ``torch.compile``. `update_`
    is the kernel: the same mathematics in place, for tensors the caller owns. An optimizer never
    evaluates its own `lr`: the caller does, and passes the value of this step.
    """

    __slots__ = ()

    @property
    def lr(self) -> LearningRate | Mapping[str, Any]:
        """The learning rate or its schedule; for groups, those of the members by name."""
        ...

    @property
    def lazy_state(self) -> bool:
        """Whether the first update adds entries to the state that `init` made."""
        return False

    def bind(self, params: Params) -> Optimizer:
        """Return the same optimizer with what depends on the parameters' names resolved.

        Args:
            params: all parameters of the model, those that are not trained too.
        """
        return self

    def trained(self, params: Params) -> list[str]:
        """Return the paths of the parameters that are not frozen: all, unless overridden.

        Args:
            params: all parameters of the model.
        """
        return list(params)

    def init(self, params: Params) -> OptimizerState:
        """Return the state before the first update.

        Args:
            params: the parameters that will be trained.
        """
        ...

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Return the parameters and the state after one update, leaving the inputs as they were.

        Args:
            grads: gradients by path; what has none is carried through.
            state: what `init` made or the last update returned.
            params: the parameters.
            lr: this step's learning rate, a float or a tensor without dimensions; for groups a
                dict of them by the members' names.
        """
        ...

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same update in place on tensors of `params` and `state` that the caller owns.

        Args:
            grads: gradients by path; they are only read.
            state: changed in place.
            params: changed in place.
            lr: as in `update`.
        """
        ...

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return the parameters to evaluate with: the same, unless the method averages.

        A class that overrides it may have a method ``averages`` as well, which tells files of a run
        where the state has these weights; see `functrain.core.averages`.
        """
        return params
