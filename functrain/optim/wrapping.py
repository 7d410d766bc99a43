"""An optimizer around another one: what small transformations of optimizers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import (
    Averages,
    LearningRate,
    Optimizer,
    OptimizerState,
    Params,
)
from functrain.optim.averages import declared
from functrain.optim.groups import Groups


class Wrapper(Optimizer, Protocol):
    """An optimizer that changes the gradients, and leaves the rest to the one inside.

    Its state is ``{"optimizer": state of the one inside, name: own value, ...}``. A wrapper
    that does more overrides `update` and `update_`.
    """

    __slots__ = ()

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer inside."""
        ...

    def regrad(self, grads: Params, own: OptimizerState, params: Params) -> tuple[Params, Any]:
        """Return the gradients to update with, and the own state after it, changing nothing.

        Args:
            grads: gradients by path.
            own: what `init_own` made or the last call returned.
            params: the parameters before the update.
        """
        return grads, own

    def init_own(self, params: Params) -> OptimizerState:
        """Return the own state before the first update: tensors by name, or by name and path."""
        return {}

    @property
    def lr(self) -> LearningRate | Mapping[str, Any]:
        """Return the value of the optimizer inside."""
        return self.optimizer.lr

    @property
    def lazy_state(self) -> bool:
        """As the optimizer inside."""
        return self.optimizer.lazy_state

    def bind(self, params: Params) -> Self:
        """Bind the optimizer inside."""
        return attrs.evolve(self, optimizer=self.optimizer.bind(params))  # type: ignore[misc]

    def trained(self, params: Params) -> list[str]:
        """As the optimizer inside."""
        return self.optimizer.trained(params)

    def init(self, params: Params) -> OptimizerState:
        """Return the state of the optimizer inside, and the own one."""
        return {"optimizer": self.optimizer.init(params), **self.init_own(params)}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Change the gradients, and let the optimizer inside update by them."""
        grads, own = self.regrad(grads, own_state(state), params)
        updated, inner = self.optimizer.update(grads, state["optimizer"], params, lr)
        return updated, {"optimizer": inner, **own}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same in place."""
        with torch.no_grad():
            grads, own = self.regrad(grads, own_state(state), params)
            self.optimizer.update_(grads, state["optimizer"], params, lr)
            write(own, own_state(state))

    def averages(self) -> list[Averages] | None:
        """As the optimizer inside."""
        return declared(self.optimizer, "optimizer")

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """As the optimizer inside."""
        return self.optimizer.eval_params(state["optimizer"], params)


def own_state(state: OptimizerState) -> OptimizerState:
    """Return the wrapper's own part of a state, without that of the optimizer inside."""
    return {name: value for name, value in state.items() if name != "optimizer"}


def write(source: OptimizerState, target: OptimizerState) -> None:
    """Copy tensors by name, or by name and path, into those of the same names, or add them."""
    for name, value in source.items():
        if name not in target:
            target[name] = value
        elif isinstance(value, Tensor):
            if value is not target[name]:
                target[name].copy_(value)
        else:
            write(value, target[name])


def selected(condition: Tensor, new: Any, old: Any) -> Any:
    """Return a tree that is `new` where the condition holds, else `old`.

    The old one may lack some: scalars of parameters that the update skipped first (see
    `functrain.optim.update_counts`), the same either way.

    Example:
        >>> selected(torch.tensor(True), {"w": torch.ones(2)}, {"w": torch.zeros(2)})
        {'w': tensor([1., 1.])}
    """
    if isinstance(new, Tensor):
        return new if new is old else torch.where(condition.to(new.device), new, old)
    return {
        name: selected(condition, value, old[name]) if name in old else value
        for name, value in new.items()
    }


def nested(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yield an optimizer and those in it: members of groups, what wrappers are around.

    Example:
        >>> from functrain.optim import SGD, Adam, Float32State, groups
        >>> made = Float32State(groups([("*.bias", SGD(0.1)), ("*", Adam(0.1))]))
        >>> [type(one).__name__ for one in nested(made)]
        ['Float32State', 'Groups', 'SGD', 'Adam']
    """
    yield optimizer
    members = [member for _, member in optimizer.members] if isinstance(optimizer, Groups) else []
    inner = getattr(optimizer, "optimizer", None)
    for one in [*members, *([inner] if isinstance(inner, Optimizer) else [])]:
        yield from nested(one)
