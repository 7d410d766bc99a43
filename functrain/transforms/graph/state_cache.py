"""A memory of the last step's inputs: most of them return in the next step."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

from functrain.core.precision import widest
from functrain.transforms.graph.inputs import scalar


@attrs.define(eq=False)
class StateCache:
    """The last state seen, and its form.

    It holds the tensors weakly, so that it keeps no state alive.

    Attributes:
        references: to the leaves.
        names: of the parameters, in order.
        places: where the storages of the leaves begin.
    """

    references: list[weakref.ref[Tensor]] = attrs.field(factory=list)
    names: list[str] = attrs.field(factory=list)
    form: int = -1
    places: frozenset[int] = frozenset()

    def holds(self, leaves: list[Tensor], names: Iterable[str]) -> bool:
        """Return whether these very tensors were seen last, under the same names."""
        references = self.references
        return (
            len(references) == len(leaves)
            and all(map(operator.is_, map(operator.call, references), leaves))
            and list(names) == self.names
        )

    def see(self, leaves: list[Tensor], names: Iterable[str], form: int) -> None:
        """Remember a state."""
        self.references, self.form = list(map(weakref.ref, leaves)), form
        self.names = list(names)
        self.places = frozenset(leaf.untyped_storage().data_ptr() for leaf in leaves)


@attrs.define(eq=False)
class RateCache:
    """Learning rates as tensors; one that stays is made once. No graph writes to its rates.

    Attributes:
        last: the rate seen last, and its tensor. They are one value: threads may share a program.
    """

    last: tuple[float, Tensor] | None = None

    def tensors(self, lr: Any, device: torch.device) -> Any:
        """Return a rate, or those of groups, as tensors."""
        if type(lr) is not float:
            return _made(lr, device)
        last = self.last
        # By identity: 0.0 and -0.0 are equal, but no two numbers are the same object.
        if last is None or last[0] is not lr or last[1].device != device:
            self.last = last = (lr, _made(lr, device))
        return last[1]


def _made(lr: Any, device: torch.device) -> Any:
    if isinstance(lr, dict):
        return {name: _made(rate, device) for name, rate in lr.items()}
    return scalar(lr, widest(device), device)
