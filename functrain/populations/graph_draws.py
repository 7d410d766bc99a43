"""Random numbers of members in a graph: drawn on the host, and given to the graph as inputs.

So a compiled member draws what it draws in an eager step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from functrain.core.global_generators import device_generator
from functrain.errors import CaptureError
from functrain.populations.draws import Draw, Streams, described, draws
from functrain.transforms.torch_internals import TorchDispatchMode, is_in_place

_MARK = 0xF0000000  # a generator with this seed or a higher one stands after a draw of the graph


class Root(NamedTuple):
    """The beginning of a sequence of draws.

    Attributes:
        part: of the step, whose stream it is; ``None`` where the loss sets the seed.
        seed: that the loss sets.
    """

    part: int | None
    seed: int


class GraphDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within it, a random operation of all members is recorded, and takes its numbers from a list.

    Attributes:
        found: the draws in order, each with the beginning of its sequence; ``None`` where it goes
            on from the draw before.
    """

    def __init__(self, streams: Streams, noise: Sequence[Tensor] | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[Draw, Root | None]] = []
        self._streams, self._noise = streams, noise
        self._at: dict[Any, int] = {}

    def use(self, noise: Sequence[Tensor] | None) -> None:
        """Take the numbers from other tensors, as those of a capture."""
        self._noise = noise

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not draws(func, args, kwargs):
            return func(*args, **(kwargs or {}))
        draw = described(func, args, kwargs or {}, self._streams.members)
        index = self._index(draw)
        torch.default_generator.manual_seed(_MARK + index)
        own = empty(draw, self._streams.members) if self._noise is None else self._noise[index]
        return args[0].copy_(own) if is_in_place(func) else own.clone()

    def _index(self, draw: Draw) -> int:
        seed = torch.initial_seed()
        key = (seed, draw.method, draw.args, draw.like.shape, draw.like.dtype)
        if key not in self._at:
            parts = list(self._streams.seeds)
            root = None
            if seed < _MARK or seed in parts:
                root = Root(parts.index(seed) if seed in parts else None, seed)
            elif seed != _MARK + len(self.found) - 1:
                raise CaptureError("torch's generator was put back within the step", None)
            self._at[key] = len(self.found)
            self.found.append((draw, root))
        return self._at[key]


def empty(draw: Draw, members: int) -> Tensor:
    """Return a tensor for the numbers of all members, with the strides of one for each."""
    like = draw.like
    return torch.empty_strided(
        (members, *like.shape),
        (max(1, like.numel()), *like.stride()),
        dtype=like.dtype,
        device=like.device,
    )


def drawn(found: list[tuple[Draw, Root | None]], streams: Streams) -> list[Tensor]:
    """Return the random numbers of a step."""
    if not found:
        return []
    noise = [empty(draw, streams.members) for draw, _ in found]
    generator = device_generator(noise[0].device) or torch.default_generator
    before, seeds = generator.get_state(), list(streams.seeds.values())
    for member in range(streams.members):
        for tensor, (draw, root) in zip(noise, found, strict=True):
            if root is not None:
                own = root.seed if root.part is None else seeds[root.part][member]
                generator.manual_seed(own)
            draw.fill(tensor[member])
    generator.set_state(before)
    return noise
