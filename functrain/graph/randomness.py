"""Random numbers while a function is captured.

Activation checkpointing computes a part of the forward pass twice, and puts the random generator
back before the second time, so that dropout drops the same elements. In a graph there is no
generator to put back: two draws are two draws. So a draw from a state of the generator that was
seen before is, in the graph, the first draw itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class SameDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a random operation from the same state of the generator gives the same tensor.

    Tensors without data draw nothing, so the generator is moved on here, by seeding it with a
    number that counts the draws; whoever captures must put it back.

    Attributes:
        count: draws so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._drawn: dict[Any, Tensor] = {}
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call: Callable[[], Any] = lambda: func(*args, **(kwargs or {}))  # noqa: E731
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return call()
        key = (func, torch.initial_seed())
        if key in self._drawn:
            again = self._drawn[key].clone()
            return args[0].copy_(again) if _in_place(func) else again
        drawn = call()
        self.count += 1
        torch.default_generator.manual_seed(self.count)
        if isinstance(drawn, Tensor):
            # The caller may write to what it got.
            self._drawn[key] = drawn.clone()
        return drawn


def _in_place(func: Any) -> bool:
    return bool(func._schema.is_mutable)
