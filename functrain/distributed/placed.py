"""States whose tensors lie on several ranks: placed, gathered, and seen from one rank.

A leaf that is divided is a ``DTensor`` with the shape of the whole: ``Shard(0)`` on a mesh of all
ranks if it is cut into rows, ``Replicate()`` on a mesh of one rank if that owns it. Steps work on
local rows, of which an owner has all and the others none. Every other leaf is a plain tensor, equal
on all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeAlias

import attrs
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard

from functrain.core.state import TrainState, fields_of
from functrain.distributed.exchange import Exchange
from functrain.distributed.placement import Division, Placement, Rows, divided
from functrain.optim.units import Unit
from functrain.tree.placed import whole

_DIVIDED = {"none": (), "optimizer": ("optimizer", "ema"), "all": ("params", "optimizer", "ema")}
_PARTS = ("params", "optimizer", "ema")

_Keys: TypeAlias = Mapping[str, Rows | None]
_Function: TypeAlias = Callable[[Tensor, Rows | None], Tensor]


@attrs.frozen(eq=False)
class Placed:
    """The places of the tensors of a program's states.

    Attributes:
        stored: how parameters and averages are divided; no path, if they are not.
        updated: how gradients and optimizer state are divided.
        parts: the parts of a state that are divided.
        paths: of all parameters that are trained.
        meshes: by the rank that owns a leaf; ``None`` is that of all ranks.
        probes: parameters of every kind that this placement divides, or another one would.
    """

    exchange: Exchange
    stored: Division
    updated: Division
    parts: tuple[str, ...]
    paths: frozenset[str]
    meshes: Mapping[int | None, DeviceMesh]
    probes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        placement: Placement,
        exchange: Exchange,
        trained: Mapping[str, Tensor],
        units: Mapping[str, Unit],
        device: str,
    ) -> Placed:
        """Decide which leaves are divided."""
        stored, updated = divided(trained, units, exchange.ranks)
        kinds = {_kind(stored.get(p), updated.get(p)): p for p in [*stored, *updated]}
        probes, parts = tuple(kinds.values()), _DIVIDED[placement.shard]
        if not parts:
            return cls(exchange, {}, {}, (), frozenset(trained), {}, probes)
        several = {rows.owner for rows in [*stored.values(), *updated.values()]}
        meshes = {owner: _mesh(owner, exchange.ranks, device) for owner in several}
        return cls(exchange, stored, updated, parts, frozenset(trained), meshes, probes)

    def rows_of(self, part: str) -> Division:
        """Return how a part of a state is divided."""
        if part not in self.parts:
            return {}
        return self.updated if part == "optimizer" else self.stored

    def fits(self, state: TrainState) -> bool:
        """Return whether a state is placed like this, judged by some leaves of each part."""
        fields = fields_of(state)
        return all(
            self._fits(leaf, self.rows_of(part).get(path))
            for part in _PARTS
            for path in self.probes
            for leaf in _of_path(fields[part], path, self.paths)
        )

    def place(self, state: TrainState) -> TrainState:
        """Return a state, the same on every rank, with this rank's part of the divided leaves."""
        state = self.gathered(state)
        return attrs.evolve(
            state, **{part: self.cut(part, getattr(state, part)) for part in _PARTS}
        )

    def cut(self, part: str, node: Any) -> Any:
        """Return a part of a state with this rank's part of the leaves that are divided."""
        return _mapped(node, self._by_key(part), self._cut)

    def gathered(self, state: TrainState, parts: Sequence[str] = _PARTS) -> TrainState:
        """Return a state with whole leaves; every rank must call it."""
        found = {
            part: _mapped(getattr(state, part), {}, lambda leaf, _: whole(leaf)) for part in parts
        }
        return attrs.evolve(state, **found)

    def local(self, part: str, node: Any) -> Any:
        """Return a part of a state as this rank's tensors."""
        return _mapped(node, self._by_key(part), self._local) if part in self.parts else node

    def wrapped(self, part: str, node: Any, before: Any) -> Any:
        """Return a part of a state with global shapes again, with the wrappers of ``before``."""
        return self._wrapped(node, before, self._by_key(part)) if part in self.parts else node

    def _by_key(self, part: str) -> _Keys:
        """Return the rows of every key that is a parameter, also of those that are not divided."""
        division = self.rows_of(part)
        return {path: division.get(path) for path in self.paths}

    def _wrapped(self, node: Any, before: Any, keys: _Keys, rows: Rows | None = None) -> Any:
        if isinstance(node, Tensor):
            return self._leaf(node, before, rows)
        if not isinstance(node, Mapping):
            return node
        old = before if isinstance(before, Mapping) else {}
        return {
            key: self._wrapped(child, old.get(key), keys, keys.get(key, rows))
            for key, child in node.items()
        }

    def _leaf(self, local: Tensor, before: Any, rows: Rows | None) -> Tensor:
        if isinstance(before, DTensor):
            if before._local_tensor is local or self._is_elsewhere(rows):
                return before
            return DTensor(local, before._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        if rows is None or before is not None:
            return local
        if local.shape == rows.shape_on(self.exchange.rank):  # added by the optimizer
            return self._distributed(local, rows, rows.shape, rows.stride)
        return local

    def _cut(self, leaf: Tensor, rows: Rows | None) -> Tensor:
        if rows is None or leaf.ndim == 0 or (rows.owner is None and leaf.shape != rows.shape):
            return leaf
        own = leaf[rows.on(self.exchange.rank)] if rows.owner is None else leaf
        # A copy of the whole: from_local keeps a view, whose base would count as shared.
        return self._distributed(own, rows, leaf.shape, leaf.stride()).clone()

    def _local(self, leaf: Tensor, rows: Rows | None) -> Tensor:
        if not isinstance(leaf, DTensor):
            return leaf
        own = leaf._local_tensor
        return own.new_empty((0, *leaf.shape[1:])) if self._is_elsewhere(rows) else own

    def _is_elsewhere(self, rows: Rows | None) -> bool:
        return rows is not None and rows.owner not in (None, self.exchange.rank)

    def _distributed(
        self, local: Tensor, rows: Rows, shape: Sequence[int], stride: Sequence[int]
    ) -> Tensor:
        found: Tensor = DTensor.from_local(
            local,
            self.meshes[rows.owner],
            [Shard(0) if rows.owner is None else Replicate()],
            run_check=False,
            shape=torch.Size(shape),
            stride=tuple(stride),
        )
        return found

    def _fits(self, leaf: Tensor, rows: Rows | None) -> bool:
        if rows is None or leaf.ndim == 0 or (rows.owner is None and leaf.shape != rows.shape):
            return not isinstance(leaf, DTensor)
        return isinstance(leaf, DTensor) and leaf.device_mesh == self.meshes[rows.owner]


def _mesh(owner: int | None, ranks: int, device: str) -> DeviceMesh:
    if owner is None:
        return DeviceMesh(device, list(range(ranks)))
    # Without a process group: nothing is exchanged within it, and each one takes milliseconds.
    return DeviceMesh(device, [owner], _init_backend=False)


def _kind(stored: Rows | None, updated: Rows | None) -> tuple[bool | None, ...]:
    return tuple(None if rows is None else rows.owner is None for rows in (stored, updated))


def _mapped(node: Any, keys: _Keys, function: _Function, rows: Rows | None = None) -> Any:
    """Map the tensors of a tree; each gets the rows of the nearest key that is a parameter.

    A parameter may have the name of a slot or of a group, which is farther from a tensor.
    """
    if isinstance(node, Tensor):
        return function(node, rows)
    if not isinstance(node, Mapping):
        return node
    return {key: _mapped(child, keys, function, keys.get(key, rows)) for key, child in node.items()}


def _of_path(node: Any, path: str, paths: Set[str]) -> Iterator[Tensor]:
    """Yield the tensors of a parameter in a tree, where it is the nearest key among ``paths``."""
    if not isinstance(node, Mapping):
        return
    found = node.get(path)
    yield from _below(found, paths)
    if isinstance(found, Tensor):  # this node is by parameter
        return
    for child in node.values():
        if isinstance(child, Mapping):
            yield from _of_path(child, path, paths)


def _below(node: Any, paths: Set[str]) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, Mapping):
        for key, child in node.items():
            if key not in paths:
                yield from _below(child, paths)
