"""States whose tensors lie on several ranks: placed, gathered, and seen from one rank.

A leaf that is cut is a ``DTensor`` with the shape of the whole, and ``Shard(0)`` on a mesh of all
ranks. Steps work on its local rows. Every other leaf is a plain tensor, equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from functrain.core.state import TrainState
from functrain.distributed.exchange import Exchange
from functrain.distributed.placement import Placement, is_cut, rows
from functrain.tree.placed import whole

_CUT = {"none": (), "optimizer": ("optimizer", "ema"), "all": ("params", "optimizer", "ema")}
_PARTS = ("params", "optimizer", "ema")


@attrs.frozen(eq=False)
class Placed:
    """The places of the tensors of a program's states.

    Attributes:
        exchange: the collectives.
        mesh: of all ranks; ``None`` where nothing is cut.
        shapes: of the parameters that are cut.
        parts: the parts of a state that are cut.
        probe: path and shape of a parameter that other placements would cut, or this one does.
    """

    exchange: Exchange
    mesh: DeviceMesh | None
    shapes: Mapping[str, torch.Size]
    parts: tuple[str, ...]
    probe: tuple[str, torch.Size] | None = None

    @classmethod
    def of(
        cls,
        placement: Placement,
        exchange: Exchange,
        trained: Mapping[str, Tensor],
        elementwise: bool,
        device: str,
    ) -> Placed:
        """Decide which leaves are cut.

        Args:
            placement: as the user gave it.
            exchange: the collectives.
            trained: the parameters that are trained.
            elementwise: whether rows of them may be updated apart.
            device: the type of the device.
        """
        parts = _CUT[placement.shard]
        # Kernels go through a leaf of other strides in an order that its rows may not have.
        shapes = {path: one.shape for path, one in trained.items() if one.is_contiguous()}
        cut = {path: shape for path, shape in shapes.items() if is_cut(shape, exchange.ranks)}
        probe = next(iter(cut.items()), None)
        if not parts or not cut or not elementwise:
            return cls(exchange, None, {}, (), probe)
        mesh = DeviceMesh(device, list(range(exchange.ranks)))
        return cls(exchange, mesh, cut, parts, probe)

    def fits(self, state: TrainState) -> bool:
        """Return whether a state is placed like this, judged by one leaf of each part."""
        if self.probe is None:
            return True
        leaves = {part: _first_like(getattr(state, part), *self.probe) for part in _PARTS}
        return all(
            isinstance(leaf, DTensor) == (part in self.parts)
            for part, leaf in leaves.items()
            if leaf is not None
        )

    def rows(self, path: str) -> slice:
        """Return the rows of this rank in a parameter that is cut."""
        return slice(*rows(self.shapes[path][0], self.exchange.rank, self.exchange.ranks))

    def place(self, state: TrainState) -> TrainState:
        """Return a state with this rank's rows of the leaves that are cut.

        Args:
            state: placed or not; not changed. Every rank has the same.
        """
        state = self.gathered(state)
        return attrs.evolve(
            state, **{part: self.cut(part, getattr(state, part)) for part in _PARTS}
        )

    def cut(self, part: str, node: Any) -> Any:
        """Return a part of a state with this rank's rows of the leaves that are cut."""
        return self._map(node, _cut) if part in self.parts else node

    def gathered(self, state: TrainState, parts: Sequence[str] = _PARTS) -> TrainState:
        """Return a state with whole leaves; every rank must call it.

        Args:
            state: placed or not; not changed.
            parts: of the state to gather.
        """
        whole = {part: self._map(getattr(state, part), _whole) for part in parts}
        return attrs.evolve(state, **whole)

    def local(self, part: str, node: Any) -> Any:
        """Return a part of a state as this rank's tensors."""
        return self._map(node, _local) if part in self.parts else node

    def wrapped(self, part: str, node: Any, before: Any) -> Any:
        """Return a part of a state whose leaves have their global shapes again.

        Args:
            part: its name.
            node: of this rank's tensors.
            before: the part that a step was given; its wrappers are used again.
        """
        return self._wrapped(node, before, None) if part in self.parts else node

    def _map(self, node: Any, function: Any, path: str | None = None) -> Any:
        if isinstance(node, Tensor):
            return function(self, node, path)
        if not isinstance(node, Mapping):
            return node
        return {
            key: self._map(child, function, key if key in self.shapes else path)
            for key, child in node.items()
        }

    def _distributed(self, local: Tensor, like: Tensor) -> Tensor:
        assert self.mesh is not None
        found: Tensor = DTensor.from_local(
            local,
            self.mesh,
            [Shard(0)],
            run_check=False,
            shape=like.shape,
            stride=torch.empty(like.shape, device="meta").stride(),
        )
        return found

    def _wrapped(self, node: Any, before: Any, path: str | None) -> Any:
        if isinstance(node, Tensor):
            return self._leaf(node, before, path)
        if not isinstance(node, Mapping):
            return node
        old = before if isinstance(before, Mapping) else {}
        return {
            key: self._wrapped(child, old.get(key), key if key in self.shapes else path)
            for key, child in node.items()
        }

    def _leaf(self, local: Tensor, before: Any, path: str | None) -> Tensor:
        if isinstance(before, DTensor):
            if before._local_tensor is local:
                return before
            return DTensor(local, before._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        if path is not None and before is None:  # an entry that the optimizer has added
            own = self.rows(path)
            shape = self.shapes[path]
            if local.shape == (own.stop - own.start, *shape[1:]):
                return self._distributed(local, local.new_empty(shape, device="meta"))
        return local


def _first_like(node: Any, path: str, shape: torch.Size) -> Tensor | None:
    """Return the first tensor of a path and shape in a tree."""
    if not isinstance(node, Mapping):
        return None
    leaf = node.get(path)
    if isinstance(leaf, Tensor) and leaf.shape == shape:
        return leaf
    found = (_first_like(child, path, shape) for child in node.values())
    return next((leaf for leaf in found if leaf is not None), None)


def _cut(placed: Placed, leaf: Tensor, path: str | None) -> Tensor:
    if path is None or leaf.shape != placed.shapes[path]:
        return leaf
    # A copy of the whole: from_local keeps the rows as a view, whose base would count as shared.
    return placed._distributed(leaf[placed.rows(path)], leaf).clone()


def _local(_: Placed, leaf: Tensor, path: str | None) -> Tensor:
    return leaf._local_tensor if isinstance(leaf, DTensor) else leaf


def _whole(_: Placed, leaf: Tensor, path: str | None) -> Tensor:
    return whole(leaf)
