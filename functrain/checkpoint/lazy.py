"""Looking into a checkpoint without reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from functrain.checkpoint.format.dtypes import BY_NAME
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.memory import contiguous_stride, empty
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.loading import locate, read_manifest
from functrain.checkpoint.storage.reading import opened_payload


class LazyLeaves(Mapping[str, Tensor]):
    """The tensors of a checkpoint by dotted path, each mapped from the disk when it is asked for.

    Attributes:
        manifest: what the checkpoint says of itself.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.manifest = manifest
        self._path = path
        self._lengths = {file.name: file.length for file in manifest.files}
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
        place = str(self._path / leaf.file)
        # Not shared: what is written to the tensor never reaches the file.
        storage: Any = torch.UntypedStorage.from_file(place, False, self._lengths[leaf.file])
        flat = torch.empty(0, dtype=dtype, device="cpu")
        # Row-major, as in the file; the leaf's own strides are those of a loaded tensor.
        stride = contiguous_stride(leaf.shape)
        return flat.set_(storage, leaf.offset // dtype.itemsize, leaf.shape, stride)

    def __iter__(self) -> Iterator[str]:
        return iter(self._leaves)

    def __len__(self) -> int:
        return len(self._leaves)


def lazy(path: str | Path) -> LazyLeaves:
    """The tensors of a checkpoint by dotted path; nothing is read before it is looked at.

    Bytes are not compared with their hashes, see :func:`functrain.checkpoint.verify` for that.
    Writing to a tensor changes memory only.

    Args:
        path: the checkpoint's directory.

    Raises:
        The errors of :func:`functrain.checkpoint.read_manifest`.
        CheckpointCorruptError: a file is missing, or of another length than was saved.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "c", {"params": {"w": torch.ones(2)}})
        >>> leaves = lazy(place)
        >>> list(leaves), leaves["params.w"]
        (['params.w'], tensor([1., 1.]))
    """
    place = locate(path)
    manifest = read_manifest(place)
    for file in manifest.files:
        with opened_payload(place / file.name, file):
            pass
    return LazyLeaves(place, manifest)
