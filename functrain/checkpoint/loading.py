"""Loading: structure first, then every byte verified, then the tree."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from functrain.checkpoint import reading
from functrain.checkpoint.commit import present
from functrain.checkpoint.encoding import decode
from functrain.checkpoint.files import opened, read_into
from functrain.checkpoint.manifest import MANIFEST, Manifest, parse, parse_entry
from functrain.checkpoint.matching import Anything, devices, mismatches
from functrain.checkpoint.retention import Entry
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointReadError,
    FunctrainError,
    NoCheckpointError,
)
from functrain.tree import Tree

_LARGEST_MANIFEST = 1 << 28
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError)


def load(
    path: str | Path,
    like: Any = None,
    *,
    device: str | torch.device | None = None,
    types: Sequence[type] = (),
) -> Tree:
    """Load what :func:`~functrain.checkpoint.save` saved, verified byte by byte.

    Args:
        path: the checkpoint's directory.
        like: a tree of the structure expected; ``Anything`` in it stands for whatever was saved.
            Only classes, keys, shapes and dtypes count, so meta tensors will do. dtypes come back
            as saved, never cast.
        device: where all tensors go. By default each goes to the device it has in ``like``, else
            to the one it was saved from if that is there, else to the CPU.
        types: attrs, NamedTuple and Enum classes that may be made besides those in ``like`` and
            functrain's own states. No other class is made, and no code of the file is run.

    Returns:
        The tree.

    Raises:
        NoCheckpointError: nothing is there.
        CheckpointCorruptError: bytes are not those that were saved; names file and leaf.
        CheckpointFormatError: it was written by a newer functrain.
        CheckpointMismatchError: it does not fit ``like``; all places are listed, nothing was read.
        CheckpointTypeError: it holds a class that was not shown.
        CheckpointReadError: the system refused to read it.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "weights", {"w": torch.ones(2), "lr": 0.1})
        >>> load(place, like={"w": torch.zeros(2), "lr": 0.0})
        {'w': tensor([1., 1.]), 'lr': 0.1}
    """
    return read(path, like, device=device, types=types)[0]


def read(
    path: str | Path,
    like: Any = None,
    *,
    device: str | torch.device | None = None,
    types: Sequence[type] = (),
) -> tuple[Tree, Manifest]:
    """Like :func:`load`, with the manifest."""
    place = _place(path)
    manifest = read_manifest(place)
    expected = Anything if like is None else like
    with _well_formed(place):
        problems = list(mismatches(manifest.structure, manifest.leaves, expected))
        targets = _targets(manifest, expected, device)
    if problems:
        raise CheckpointMismatchError(place, problems)
    with _readable(place):
        tensors = reading.read(place, manifest.files, manifest.leaves, targets)
    return decode(manifest.structure, list(tensors.values()), expected, types), manifest


def read_manifest(path: str | Path) -> Manifest:
    """What a checkpoint says about itself; the payload is not touched.

    Args:
        path: the checkpoint's directory.

    Raises:
        NoCheckpointError: nothing is there.
        CheckpointCorruptError: the manifest is damaged.
        CheckpointFormatError: it was written by a newer functrain.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "weights", {"w": torch.ones(2)}, step=7)
        >>> manifest = read_manifest(place)
        >>> manifest.step, [(leaf.path, leaf.dtype, leaf.shape) for leaf in manifest.leaves]
        (7, [('w', 'float32', (2,))])
    """
    data = _manifest_bytes(_place(path))
    with _well_formed(_place(path)):
        return parse(data)


def read_entry(path: str | Path) -> tuple[int | None, Entry]:
    """Step, metrics and time alone, which is quick for any number of leaves."""
    data = _manifest_bytes(_place(path))
    with _well_formed(_place(path)):
        return parse_entry(data)


def verify(path: str | Path) -> Manifest:
    """Read all bytes of a checkpoint and make sure that they are those that were saved.

    Raises:
        The errors of :func:`load`, but for those about structure.
    """
    place = _place(path)
    manifest = read_manifest(place)
    with _readable(place):
        reading.verify(place, manifest.files, manifest.leaves)
    return manifest


def is_sound(path: str | Path) -> bool:
    """Whether a checkpoint verifies; errors that are not damage are raised."""
    try:
        verify(path)
    except CheckpointCorruptError:
        return False
    return True


def _place(path: str | Path) -> Path:
    absolute = Path(path).absolute()
    with _readable(absolute):
        return present(absolute)


def _manifest_bytes(place: Path) -> bytes:
    if not place.is_dir():
        raise NoCheckpointError(errno.ENOENT, f"there is no checkpoint at {place}")
    with _readable(place):
        try:
            return _contents(place / MANIFEST)
        except FileNotFoundError as error:
            raise CheckpointCorruptError(f"{place} has no {MANIFEST}") from error


def _contents(path: Path) -> bytes:
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > _LARGEST_MANIFEST:
            raise CheckpointCorruptError(f"{path} is too long for a manifest: {size:,} bytes")
        data = bytearray(size)
        read = read_into(descriptor, memoryview(data), 0)
        return bytes(data[:read])


def _targets(
    manifest: Manifest, like: Any, device: str | torch.device | None
) -> dict[int, torch.device]:
    if device is not None:
        return dict.fromkeys(range(len(manifest.leaves)), torch.device(device))
    saved = {leaf.device: _here(leaf.device) for leaf in manifest.leaves}
    targets = {index: saved[leaf.device] for index, leaf in enumerate(manifest.leaves)}
    for index, wanted in devices(manifest.structure, like):
        twin = manifest.leaves[index].alias_of
        targets[index if twin is None else twin] = wanted
    return targets


def _here(name: str) -> torch.device:
    """The device of a name, if there is one here; else the CPU."""
    device = torch.device(name)
    backend: Any = getattr(torch, device.type, None)
    is_there = (
        device.type != "cpu"
        and backend is not None
        and backend.is_available()
        and (device.index or 0) < backend.device_count()
    )
    return device if is_there else torch.device("cpu")


@contextlib.contextmanager
def _well_formed(path: Path) -> Iterator[None]:
    try:
        yield
    except FunctrainError as error:
        error.add_note(f"in {path / MANIFEST}")
        raise
    except _MALFORMED as error:
        raise CheckpointCorruptError(f"{path / MANIFEST} is damaged: {error}") from error


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FunctrainError:
        raise
    except OSError as error:
        if error.errno in (errno.EIO, errno.ELOOP):
            raise CheckpointCorruptError(f"{path} cannot be read: {error}") from error
        raise CheckpointReadError(path, error) from error
