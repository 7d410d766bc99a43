"""Buffers that a forward changes: the shapes they may take, and those that no state holds.

A state has the buffers that the module had when the program was made. A later one would stay in
the private shell: lost when a run is resumed, and visible to steps from unrelated states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from torch import Tensor, nn

from functrain.errors import ModelError


def may_become(buffer: Tensor, shape: Sequence[int]) -> bool:
    """Whether a buffer may be the placeholder of one of a given shape.

    An empty one may be that of any; another one where broadcasting it gives the shape, as one
    number does that becomes one for each channel.

    Args:
        buffer: as a program is made with it.
        shape: what it would become.

    Example:
        >>> import torch
        >>> scale, table = torch.ones(1), torch.zeros(8, 4)
        >>> may_become(scale, [6]), may_become(torch.zeros(0), [2, 3]), may_become(table, [16, 4])
        (True, True, False)
    """
    pairs = zip(reversed(buffer.shape), reversed(shape), strict=False)
    broadcast = buffer.ndim <= len(shape) and all(ours in (1, theirs) for ours, theirs in pairs)
    return broadcast or buffer.numel() == 0


@attrs.frozen(eq=False)
class KnownBuffers:
    """The names of the buffers that each submodule has when a program is made.

    Attributes:
        tables: where ``nn.Module`` keeps them, one a submodule.
        count: how many there are.
        modules: path, submodule and names.
        empty: table, name and path of the persistent ones that are ``None``. Those that are not
            persistent are caches, which a forward may fill and register as it likes.
    """

    tables: list[dict[str, Tensor | None]]
    count: int
    modules: list[tuple[str, nn.Module, frozenset[str]]]
    empty: list[tuple[dict[str, Tensor | None], str, str]]

    @classmethod
    def of(cls, module: nn.Module) -> KnownBuffers:
        """Take the names of a module and all below it."""
        modules = [(path, m, frozenset(m._buffers)) for path, m in module.named_modules()]
        empty = [
            (m._buffers, name, _joined(path, name))
            for path, m, names in modules
            for name in m._buffers
            if m._buffers[name] is None and name not in m._non_persistent_buffers_set
        ]
        count = sum(len(names) for *_, names in modules)
        return cls([m._buffers for _, m, _ in modules], count, modules, empty)

    def refuse_others(self) -> None:
        """Take away what a forward has filled or registered, and raise.

        Raises:
            ModelError: it has, and the buffer is persistent.
        """
        self._refuse_filled()
        # At each step, so they are only counted: 5 us for 100 submodules.
        if sum(map(len, self.tables)) > self.count:
            self._refuse_registered()

    def _refuse_filled(self) -> None:
        filled: list[Any] = [place for place in self.empty if place[0].get(place[1]) is not None]
        for table, name, _ in filled:
            table[name] = None
        if filled:
            raise ModelError(
                f"the forward filled {[path for *_, path in filled][:8]}, None when the program "
                f"was made: {_REMEDY}"
            )

    def _refuse_registered(self) -> None:
        found = [
            (m, name, _joined(path, name))
            for path, m, names in self.modules
            for name in list(m._buffers)
            if name not in names and name not in m._non_persistent_buffers_set
        ]
        for module, name, _ in found:
            del module._buffers[name]
        if found:
            raise ModelError(
                f"the forward registered {[path for *_, path in found][:8]}, which was no buffer "
                f"when the program was made: {_REMEDY}"
            )


_REMEDY = (
    "a buffer that changes must have a place in the state from the start. Register it in __init__ "
    "with a tensor of its shape and dtype, or torch.zeros(0) where these are not known; or with "
    "persistent=False, if it is only a cache that can be computed again"
)


def removed(paths: list[str]) -> ModelError:
    """Return what to raise where a forward has removed buffers of the state."""
    return ModelError(
        f"the forward removed {paths[:8]}, or set it to None: a buffer in the state must stay a "
        "tensor. Give it an empty one instead: torch.zeros(0)"
    )


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
