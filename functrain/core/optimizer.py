"""The protocol of optimizers: frozen hyperparameters with a pure rule and a fast kernel."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch.utils._pytree as pytree
from torch import Tensor

Params: TypeAlias = dict[str, Tensor]
"""Path (``"encoder.0.weight"``) to tensor; gradients and moments have the same shape."""

OptimizerState: TypeAlias = dict[str, Any]
"""Nested dicts of tensors; ``from_torch`` also keeps plain Python values in it."""


class PlainGradients(dict[str, Tensor]):
    """Gradients by path that were found to lie in memory as their parameters do.

    Each is strided and contiguous and has the shape of its parameter, which is contiguous too. A
    kernel that walks both side by side need not look again, as it must with any other dict.
    """

    __slots__ = ("_found",)

    def __init__(self, paths: Iterable[str], tensors: Sequence[Tensor]) -> None:
        super().__init__(zip(paths, tensors, strict=True))
        self._found = tensors

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


def are_plain(grads: Params) -> bool:
    """Return whether gradients are known to lie in memory as their parameters do."""
    return type(grads) is PlainGradients and grads.are_unchanged()


TORCH_STATE = frozenset({"state", "shared", "group", "attributes"})
"""Keys of a state that ``from_torch`` made; only the torch optimizer knows what is below them."""

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
        """Return the parameters to evaluate with: the same, unless the method averages."""
        return params
