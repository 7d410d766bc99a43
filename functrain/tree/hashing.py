"""Hashes of a tree at every node (Merkle, 1979), which locate differences without the trees.

Equal trees have equal roots. Where roots differ, the nodes below that differ lead to the leaves.
As in :func:`functrain.tree.diff`, the order of a dict's keys, the device and the placement of a
DTensor are ignored: all ranks hash its whole value together, one leaf at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs
import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_128

from functrain.tree.compare import to_bytes
from functrain.tree.elements import parts_of
from functrain.tree.frozen_dict import kind
from functrain.tree.nodes import Key, Leaf, Path, Tree, children, is_node


@attrs.frozen
class Merkle:
    """The hash of a node (xxh3-128), and those of its children; ``None`` for a leaf."""

    digest: bytes
    children: dict[Key, Merkle] | None = None

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, bytes]]:
        """Yield the hash of every leaf with its path, in tree order."""
        if self.children is None:
            yield path, self.digest
            return
        for key, child in self.children.items():
            yield from child.leaves((*path, key))


def digest(tree: Tree) -> str:
    """Return a 128-bit hash of the structure and all bytes of a tree, as 32 hex digits.

    Args:
        tree: any tree of tensors and Python scalars.

    Returns:
        xxh3-128; equal trees have equal digests, on any device and in any placement.

    Example:
        >>> digest({"w": torch.zeros(2)}) == digest({"w": torch.zeros(2)})
        True
        >>> digest({"w": torch.zeros(2)}) == digest({"w": -torch.zeros(2)})
        False
    """
    return merkle(tree).digest.hex()


def merkle(tree: Tree) -> Merkle:
    """Hash a tree, node by node.

    A leaf is hashed with dtype and shape, or by its type alone; a node with its type and keys.

    Example:
        >>> ours, theirs = merkle({"a": 1, "b": [2.0]}), merkle({"a": 1, "b": [-2.0]})
        >>> ours.digest == theirs.digest, ours.children["a"] == theirs.children["a"]
        (False, True)
        >>> [path for path, _ in ours.leaves()]
        [('a',), ('b', 0)]
    """
    if not is_node(tree):
        return Merkle(_of_tensor(tree) if isinstance(tree, Tensor) else _of_value(tree))
    below = {key: merkle(child) for key, child in children(tree)}
    state = xxh3_128(f"{kind(tree).__name__}:{len(below)};".encode())
    # Sorted, because a loaded dict may have its keys in another order.
    for name, digest in sorted((repr(key), child.digest) for key, child in below.items()):
        state.update(f"{name};".encode())
        state.update(digest)
    return Merkle(state.digest(), below)


def _of_tensor(tensor: Tensor) -> bytes:
    parts = parts_of(tensor)
    if parts is not None:
        form = "" if tensor.is_nested else tuple(tensor.shape)
        state = xxh3_128(f"{tensor.dtype}{tensor.layout}{form};".encode())
        state.update(merkle(parts).digest)
        return state.digest()
    state = xxh3_128(f"{tensor.dtype}{tuple(tensor.shape)};".encode())
    if tensor.numel():
        # Not by Tensor.numpy(), after which the tensor could never be resized.
        state.update(np.from_dlpack(to_bytes(tensor).cpu()).data)
    return state.digest()


def _of_value(leaf: Leaf) -> bytes:
    kind = type(leaf).__name__
    if type(leaf).__module__ == "numpy" and hasattr(leaf, "tobytes") and not leaf.dtype.hasobject:
        return xxh3_128(f"{leaf.dtype}{leaf.shape};".encode() + leaf.tobytes()).digest()
    if isinstance(leaf, float):
        leaf = struct.pack("<d", leaf)
    elif isinstance(leaf, torch.Generator):
        return xxh3_128(f"{kind};".encode() + bytes(leaf.get_state().tolist())).digest()
    known = leaf is None or isinstance(
        leaf, bool | int | complex | str | bytes | torch.dtype | torch.device
    )
    return xxh3_128((f"{kind}:{leaf!r};" if known else f"{kind};").encode()).digest()
