"""Parameters in half precision, trained in float32."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Averages, Optimizer, OptimizerState, Params
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, flag
from functrain.optim.wrapping import Wrapper

_HALVES = (torch.float16, torch.bfloat16)


@explained
@attrs.frozen
class Float32State(Wrapper):
    """Train float16 and bfloat16 parameters with the optimizer's state in float32.

    The optimizer inside sees gradients and parameters cast to float32, so that its moments and
    its eps do not underflow, and what it returns is rounded to the parameters' dtype. With
    `master_weights` it updates a float32 copy of them in the state, which keeps the small
    updates that rounding would lose (Micikevicius et al., 2018, "Mixed precision training").
    Leaves of other dtypes pass through as they are.

    At every update the parameters become the rounded master weights. An element of a parameter
    that is another than its rounded master weight was written since, by a forward or in another
    state, and is taken over.

    Args:
        optimizer: what updates in float32.
        master_weights: whether to keep float32 copies of half-precision parameters.

    Raises:
        ConfigurationError: a value is out of range.

    Example:
        >>> from functrain.optim import SGD
        >>> wide = Float32State(SGD(lr=0.001), master_weights=True)
        >>> params, grads = {"w": torch.ones(1).bfloat16()}, {"w": -torch.ones(1).bfloat16()}
        >>> state = wide.init(params)
        >>> for _ in range(10):  # the next larger bfloat16 is 1.0078
        ...     params, state = wide.update(grads, state, params, 0.001)
        >>> params["w"], state["master"]["w"]
        (tensor([1.0078], dtype=torch.bfloat16), tensor([1.0100]))
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    master_weights: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True

    def init(self, params: Params) -> OptimizerState:
        """Return the state of the optimizer inside, made for float32, and the master weights."""
        wide = _widened(params)
        master = {path: wide[path].detach() for path in params if _is_half(params[path])}
        return {"optimizer": self.optimizer.init(wide), **self._own(master)}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Update in float32, and round."""
        wide = self._wide(state, params)
        updated, inner = self.optimizer.update(_widened(grads), state["optimizer"], wide, lr)
        master = {path: updated[path] for path in params if _is_half(params[path])}
        return _rounded(updated, params), {"optimizer": inner, **self._own(master)}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same in place."""
        with torch.no_grad():
            if self.master_weights:
                for path, one in state["master"].items():
                    one.copy_(_followed(one, params[path]))
            wide = {**params, **state["master"]} if self.master_weights else _widened(params)
            self.optimizer.update_(_widened(grads), state["optimizer"], wide, lr)
            halves = [path for path in params if _is_half(params[path])]
            if halves:
                targets = [params[path] for path in halves]
                torch._foreach_copy_(targets, [wide[path] for path in halves])

    def averages(self) -> list[Averages] | None:
        """As the optimizer inside, which updates the master weights."""
        said = super().averages()
        if said is None or not self.master_weights:
            return said
        return [attrs.evolve(one, params=one.params or "master") for one in said]

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return what the optimizer inside evaluates with, rounded."""
        wide = self._wide(state, params)
        averaged = self.optimizer.eval_params(state["optimizer"], wide)
        return params if averaged is wide else _rounded(averaged, params)

    def _wide(self, state: OptimizerState, params: Params) -> Params:
        if not self.master_weights:
            return _widened(params)
        master = state["master"].items()
        return {**params, **{path: _followed(one, params[path]) for path, one in master}}

    def _own(self, master: Params) -> OptimizerState:
        return {"master": master} if self.master_weights else {}


def _is_half(leaf: Tensor) -> bool:
    return leaf.dtype in _HALVES


def _followed(master: Tensor, param: Tensor) -> Tensor:
    """Return the master weight, with the elements of its parameter that others wrote since."""
    return torch.where(master.to(param.dtype) == param, master, param.float())


def _widened(leaves: Params) -> Params:
    return {path: leaf.float() if _is_half(leaf) else leaf for path, leaf in leaves.items()}


def _rounded(wide: Params, params: Params) -> Params:
    return {path: leaf.to(params[path].dtype) for path, leaf in wide.items()}
