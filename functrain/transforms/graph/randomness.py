"""Random numbers while a function is captured.

Activation checkpointing computes a part of the forward pass twice, and puts the random generator
back before the second time, so that dropout drops the same elements. In a graph there is no
generator to put back: two draws are two draws. So a draw from a state of the generator that was
seen before is, in the graph, the first draw itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from functrain.errors import CaptureError
from functrain.transforms.graph.torch_internals import TorchDispatchMode, tree_map_only

_FIRST = 1 << 62  # no seed that anybody would choose


class SameDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a random operation from the same state of the generator gives the same tensor.

    Tensors without data draw nothing, so the generator is moved on here, by seeding it with a
    number that counts the draws; the capture must put it back.

    Attributes:
        draws: whether anything was drawn, or may be by an operation that is not torch's own.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws = False
        # The draw at a state of the generator, and the state afterwards.
        self._drawn: dict[Any, tuple[Any, int]] = {}
        self._last = _FIRST

    def __enter__(self) -> SameDraws:
        torch.default_generator.manual_seed(_FIRST)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.draws |= func.namespace not in ("aten", "prim", "prims")
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        self.draws = True
        seed = torch.initial_seed()
        if not _FIRST <= seed <= self._last:
            raise CaptureError("torch's generator was seeded within the step", None)
        key = (func, seed, str(tree_map_only(Tensor, _form, (args, kwargs))))
        if key not in self._drawn:
            self._last += 1
            drawn = func(*args, **kwargs)
            # The caller may write to its tensor.
            self._drawn[key] = (tree_map_only(Tensor, Tensor.clone, drawn), self._last)
            torch.default_generator.manual_seed(self._last)
            return drawn
        again, after = self._drawn[key]
        torch.default_generator.manual_seed(after)
        again = tree_map_only(Tensor, Tensor.clone, again)
        return args[0].copy_(again) if func._schema.is_mutable else again


def _form(tensor: Tensor) -> tuple[Any, ...]:
    return (tensor.shape, tensor.dtype, tensor.device)
