"""Compare the training states of two checkpoints by their manifests alone."""

from __future__ import annotations

from typing import Any

from functrain.checkpoint import Leaf, Manifest
from functrain.checkpoint.format.structure import decode_node


def is_same_training(first: Manifest, second: Manifest) -> bool:
    """Return whether the training states are the same, bit for bit, by the hashes of tensors.

    The rest of a run's checkpoint is ignored: the loop's bookkeeping, the states of loader and
    listeners. A checkpoint that is not of a run is compared as a whole.
    """
    ours, theirs = (_resolved(_training(each), each) for each in (first, second))
    return bool(ours == theirs)


def _training(manifest: Manifest) -> Any:
    node = decode_node(manifest.structure)
    children = {} if node is None else dict(node.children)
    return children.get("train", manifest.structure)


def _resolved(json: Any, manifest: Manifest) -> Any:
    """Return the structure with each tensor's hashes instead of its index."""
    if isinstance(json, dict):
        if "$tensor" in json:
            return _bytes_of(manifest.leaves[json["$tensor"]])
        return {key: _resolved(child, manifest) for key, child in json.items()}
    if isinstance(json, list):
        return [_resolved(child, manifest) for child in json]
    return repr(json)  # Python has 1 == 1.0 == True


def _bytes_of(leaf: Leaf) -> Any:
    return leaf.dtype, leaf.shape, leaf.hashes
