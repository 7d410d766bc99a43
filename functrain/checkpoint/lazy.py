"""Memory-map the tensors of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.tensor_bytes import contiguous_stride, empty
from functrain.checkpoint.manifest_file import manifest_at, manifest_bytes, retry_while_replaced
from functrain.checkpoint.storage.reading import opened_payload
from functrain.errors import CheckpointCorruptError


class LazyLeaves(Mapping[str, Tensor]):
    """The tensors of a checkpoint by dotted path, mapped from the disk."""

    def __init__(self, manifest: Manifest, storages: dict[str, Any]) -> None:
        self.manifest = manifest
        self._storages = storages
        self._leaves: dict[str, Leaf] = {}
        for leaf in manifest.leaves:
            name, count = leaf.path, 1
            while name in self._leaves:  # ``a.b`` can also be the key ``b`` under ``a``
                count += 1
                name = f"{leaf.path}~{count}"
            self._leaves[name] = leaf

    def __getitem__(self, path: str) -> Tensor:
        leaf = self._leaves[path]
        dtype = BY_NAME[leaf.dtype]
        if leaf.length == 0:
            return empty(leaf.shape, dtype)
        storage = self._storages[leaf.file]
        flat = torch.empty(0, dtype=dtype, device="cpu")
        # Row-major, as in the file; the strides of the leaf describe a loaded tensor.
        stride = contiguous_stride(leaf.shape)
        return flat.set_(storage, leaf.offset // dtype.itemsize, leaf.shape, stride)

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)


def lazy(path: str | Path) -> LazyLeaves:
    """Map the tensors of a checkpoint by dotted path; bytes are read on first use.

    Hashes are not checked; see :func:`functrain.checkpoint.verify` for that. Writing to a tensor
    never changes the file.

    Args:
        path: the checkpoint's directory.

    Raises:
        The errors of :func:`functrain.checkpoint.read_manifest`.
        CheckpointCorruptError: a file is missing or its length differs from that saved.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "c", {"params": {"w": torch.ones(2)}})
        >>> leaves = lazy(place)
        >>> list(leaves), leaves["params.w"]
        (['params.w'], tensor([1., 1.]))
    """
    return retry_while_replaced(path, _mapped)


def _mapped(place: Path) -> LazyLeaves:
    """Map all files at once: a mapping stays valid when the file is removed."""
    before = manifest_bytes(place)
    manifest, storages = manifest_at(place), {}
    for file in manifest.files:
        name = str(place / file.name)
        with opened_payload(place / file.name, file):
            # Not shared: writing to a tensor must never reach the file.
            storages[file.name] = torch.UntypedStorage.from_file(name, False, file.length)
    if manifest_bytes(place) != before:
        raise CheckpointCorruptError(f"{place} was replaced while it was mapped")
    return LazyLeaves(manifest, storages)
