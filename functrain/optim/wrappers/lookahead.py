"""Lookahead: fast weights that explore, slow ones that follow."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor

from functrain.core.optimizer import Averages, Optimizer, OptimizerState, Params
from functrain.errors import ConfigurationError
from functrain.errors.calls import explained
from functrain.optim.hyperparameters import an_optimizer, count, flag, not_negative
from functrain.optim.methods.schedule_free_average import ScheduleFree
from functrain.optim.update_counts import aligned
from functrain.optim.wrappers.float32_state import Float32State
from functrain.optim.wrapping import Wrapper, nested, selected, write


def _keeps_weights(optimizer: Optimizer) -> bool:
    masters = isinstance(optimizer, Float32State) and optimizer.master_weights
    return masters or isinstance(optimizer, ScheduleFree)


@explained
@attrs.frozen
class Lookahead(Wrapper):
    """Every few updates go back to between where they began and where they led.

    The parameters are the fast weights. After every `sync_period` updates the slow weights move
    to ``slow + slow_step_size * (fast - slow)`` and the fast ones are set to them (Zhang et al.,
    2019). Evaluation uses the slow weights, as the authors and ``optax.lookahead`` advise,
    whatever the optimizer inside would evaluate with. The slow weights are part of the state:
    who puts other parameters into a state has to begin with a new one.

    Args:
        optimizer: what updates the fast weights.
        sync_period: updates from one synchronisation to the next; the paper has 5 and 10.
        slow_step_size: how far the slow weights move towards the fast ones; the paper has 0.5
            and 0.8.
        reset_state: whether the optimizer inside starts from scratch after each
            synchronisation, its count of updates too.

    Raises:
        ConfigurationError: a value is out of range, or the optimizer inside keeps weights.

    Example:
        >>> from functrain.optim import SGD
        >>> lookahead = Lookahead(SGD(lr=1.0), sync_period=2)
        >>> params, grads = {"w": torch.tensor(0.0)}, {"w": torch.tensor(-1.0)}
        >>> state = lookahead.init(params)
        >>> for _ in range(3):
        ...     params, state = lookahead.update(grads, state, params, 1.0)
        ...     print(params["w"].item(), lookahead.eval_params(state, params)["w"].item())
        1.0 0.0
        1.0 1.0
        2.0 1.0
    """

    optimizer: Optimizer = attrs.field(validator=an_optimizer)
    sync_period: int = attrs.field(default=5, validator=count)
    slow_step_size: float | Tensor = attrs.field(default=0.5, validator=not_negative)
    reset_state: bool = attrs.field(default=False, validator=flag)

    elementwise: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        keeping = next((one for one in nested(self.optimizer) if _keeps_weights(one)), None)
        if keeping is not None:
            raise ConfigurationError(
                f"Lookahead: {type(keeping).__name__} inside keeps weights of its own, which would "
                "undo the synchronisation; put Float32State around Lookahead, and use "
                "Schedule-Free, which averages by itself, without it"
            )
        if self.reset_state and self.optimizer.lazy_state:
            raise ConfigurationError(
                "Lookahead: reset_state=True needs an optimizer inside whose state is whole from "
                f"the start, got {self.optimizer!r}"
            )

    def init_own(self, params: Params) -> OptimizerState:
        """Return the count of updates, and the slow weights."""
        device = next((param.device for param in params.values()), None)
        slow = {path: param.detach().clone() for path, param in params.items()}
        return {"count": torch.zeros((), dtype=torch.int64, device=device), "slow": slow}

    def update(
        self, grads: Params, state: OptimizerState, params: Params, lr: Any
    ) -> tuple[Params, OptimizerState]:
        """Update the fast weights, and synchronise where it is time."""
        fast, inner = self.optimizer.update(grads, state["optimizer"], params, lr)
        count = state["count"] + 1
        due = count % self.sync_period == 0
        moved = {path: self._moved(slow, fast[path]) for path, slow in state["slow"].items()}
        if self.reset_state:
            inner = selected(due, aligned(self.optimizer.init(moved), inner), inner)
        slow = selected(due, moved, state["slow"])
        return selected(due, moved, fast), {"optimizer": inner, "count": count, "slow": slow}

    def update_(self, grads: Params, state: OptimizerState, params: Params, lr: Any) -> None:
        """Do the same in place; on the CPU the slow weights are touched only when it is time."""
        self.optimizer.update_(grads, state["optimizer"], params, lr)
        with torch.no_grad():
            due = state["count"].add_(1) % self.sync_period == 0
            if due.is_cpu and not due:
                return
            for path, slow in state["slow"].items():
                moved = self._moved(slow, params[path])
                params[path].copy_(selected(due, moved, params[path]))
                slow.copy_(selected(due, moved, slow))
            if self.reset_state:
                fresh = aligned(self.optimizer.init(params), state["optimizer"])
                write(selected(due, fresh, state["optimizer"]), state["optimizer"])

    def averages(self) -> list[Averages]:
        """Name the slot of the slow weights."""
        return [Averages("slow")]

    def eval_params(self, state: OptimizerState, params: Params) -> Params:
        """Return the slow weights."""
        slow: Params = state["slow"]
        return slow

    def _moved(self, slow: Tensor, fast: Tensor) -> Tensor:
        return (slow + self.slow_step_size * (fast - slow)).to(slow.dtype)
