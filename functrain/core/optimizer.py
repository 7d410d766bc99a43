"""The protocol of optimizers: frozen hyperparameters with a pure rule and a fast kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs
from torch import Tensor

from functrain.tree.nodes import matches

Params: TypeAlias = dict[str, Tensor]
"""Path (``"encoder.0.weight"``) to tensor; gradients and moments have the same shape."""


class NamedParams(dict[str, Tensor]):
    """Parameters by path, with the other names of tied ones, by which patterns find them, too."""

    def __init__(self, params: Params, others: Mapping[str, Sequence[str]]) -> None:
        super().__init__(params)
        self.others = others


def means(pattern: Any, path: str, params: Params) -> bool:
    """Return whether a pattern means a parameter; see ``matches``.

    Example:
        >>> import torch
        >>> tied = NamedParams({"embed.weight": torch.ones(2)}, {"embed.weight": ["head.weight"]})
        >>> means("head.*", "embed.weight", tied), means("head.*", "embed.weight", dict(tied))
        (True, False)
    """
    return matches(pattern, path, params[path], getattr(params, "others", {}).get(path, ()))


OptimizerState: TypeAlias = dict[str, Any]
"""Nested dicts of tensors; ``from_torch`` also keeps plain Python values in it."""


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
        """Return the optimizer as it is with the names of all parameters, also frozen ones."""
        return self

    def trained(self, params: Params) -> list[str]:
        """Return which of all parameters the optimizer does not freeze, by path: all."""
        return list(params)

    def init(self, params: Params) -> OptimizerState:
        """Return the state before the first update of the parameters that will be trained."""
        ...

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Return the parameters and the state after one update, leaving the inputs as they were.

        Args:
            grads: gradients by path; what has none is carried through.
            state: what `init` made or the last update returned.
            params: those that are trained.
            lr: this step's learning rate, a float or a tensor without dimensions; for groups a
                dict of them by the members' names.
        """
        ...

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same update in place on tensors of `params` and `state` that the caller owns."""
        ...

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return the parameters to evaluate with: the same, unless the method averages.

        A class that overrides it may have a method ``averages`` as well; see :class:`Averages`.
        """
        return params


@attrs.frozen
class Averages:
    """Entries of an optimizer's state that are evaluated in place of parameters, or tell what is.

    An optimizer says so as data, in a method ``averages() -> list[Averages] | None``, and a
    checkpoint records what it says. So the files alone tell of which weights its metrics are.

    Attributes:
        slot: the dotted name of their dict in the state.
        share: how far the evaluated weight is from the parameter towards the entry; ``None`` if it
            is the entry.
        params: the dotted name of a dict of parameters in the state, such as master weights, which
            stand for the parameters that it has.
    """

    slot: str
    share: float | Tensor | None = None
    params: str | None = None

    def weight(self, param: Tensor, entry: Tensor) -> Tensor:
        """Return the weight to evaluate with."""
        return entry if self.share is None else param + self.share * (entry - param)

    def below(self, name: str) -> Averages:
        """Return the same in a state that has this state under a name."""
        params = None if self.params is None else f"{name}.{self.params}"
        return attrs.evolve(self, slot=f"{name}.{self.slot}", params=params)
