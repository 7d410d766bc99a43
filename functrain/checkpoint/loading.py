"""Loading: structure first, then every byte verified, then the tree."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, overload

import torch

from functrain.checkpoint import assemble
from functrain.checkpoint.by_path import PathOptions
from functrain.checkpoint.format.manifest import MANIFEST, Manifest, parse, parse_entry
from functrain.checkpoint.format.mismatches import Anything
from functrain.checkpoint.format.records import Entry
from functrain.checkpoint.run_directory import list_steps, missing
from functrain.checkpoint.storage import reading
from functrain.checkpoint.storage.commit import present
from functrain.checkpoint.storage.files import opened, read_into, turn
from functrain.checkpoint.translate_errors import manifest_errors, readable
from functrain.errors import CheckpointCorruptError, ConfigurationError, NoCheckpointError
from functrain.tree import Tree

_LARGEST_MANIFEST = 1 << 28
_MOST_ATTEMPTS = 5
T = TypeVar("T")


class LoadOptions(TypedDict, total=False):
    """The keyword arguments of :func:`load`, for type checkers."""

    device: str | torch.device | None
    types: Sequence[type]
    only: str | Sequence[str] | None
    rename: Mapping[str, str] | None
    cast: bool
    partial: bool
    migrate: Callable[[Tree], Tree] | None
    verify: bool


@overload
def load(
    path: str | Path,
    like: type[Anything] | Anything | None = None,
    **options: Unpack[LoadOptions],
) -> Tree: ...
@overload
def load(path: str | Path, like: T, **options: Unpack[LoadOptions]) -> T: ...


def load(
    path: str | Path,
    like: Any = None,
    *,
    device: str | torch.device | None = None,
    types: Sequence[type] = (),
    only: str | Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    cast: bool = False,
    partial: bool = False,
    migrate: Callable[[Tree], Tree] | None = None,
    verify: bool = True,
) -> Tree:
    """Load what :func:`~functrain.checkpoint.save` saved, verified byte by byte.

    With ``only``, ``rename``, ``cast``, ``partial`` or ``migrate``, leaves are found by their
    dotted paths, and what of ``like`` is not loaded is in the result as it is.

    Args:
        path: the checkpoint's directory.
        like: a tree of the structure expected; ``Anything`` in it stands for whatever was saved.
            Only classes, keys, shapes and dtypes count, so meta tensors will do. dtypes come back
            as saved, never cast unless asked. A state of a ``from_torch`` optimizer or schedule
            may have gained entries since: ``program.init()`` fits a state after any step.
        device: where all tensors go. By default each goes to the device it has in ``like``, else
            to the one it was saved from if that is there, else to the CPU.
        types: attrs, NamedTuple and Enum classes that may be made besides those in ``like`` and
            functrain's own states. No other class is made, and no code of the file is run.
        only: globs over paths (``"params"``, ``"*.bias"``), of leaves or of all below a node; no
            other leaves are read. Without ``like`` a node that lost leaves becomes a dict of the
            rest.
        rename: new path by saved path, for a leaf or all below a node; ``*`` stands for any text.
        cast: convert tensors to the dtype in ``like`` as ``Tensor.to`` does, but never complex
            numbers to real ones or fractions to integers. Values may be rounded, or be too large.
        partial: leave out what only ``like`` or only the checkpoint has, and warn with a list.
        migrate: pure function from the saved tree, in which classes are dicts of their fields, to
            one that fits ``like``.
        verify: compare all bytes that are read with the hashes they were saved with.

    Returns:
        The tree.

    Raises:
        NoCheckpointError: nothing is there.
        CheckpointCorruptError: bytes are not those that were saved; names file and leaf.
        CheckpointFormatError: it was written by a newer functrain.
        CheckpointMismatchError: it does not fit ``like``; all places are listed, nothing was read.
        CheckpointTypeError: it holds a class that was not shown.
        CheckpointReadError: the system refused to read it.

    Warns:
        PartialLoadWarning: with ``partial``, what was left out.

    Example:
        >>> import tempfile
        >>> from functrain.checkpoint import save
        >>> place = save(Path(tempfile.mkdtemp()) / "weights", {"w": torch.ones(2), "lr": 0.1})
        >>> load(place, like={"w": torch.zeros(2), "lr": 0.0})
        {'w': tensor([1., 1.]), 'lr': 0.1}
        >>> load(place, like={"weight": torch.zeros(2), "lr": 0.0}, rename={"w": "weight"})
        {'weight': tensor([1., 1.]), 'lr': 0.1}
    """
    return read(
        path,
        like,
        device=device,
        types=types,
        only=only,
        rename=rename,
        cast=cast,
        partial=partial,
        migrate=migrate,
        verify=verify,
    )[0]


def read(
    path: str | Path,
    like: Any = None,
    *,
    device: str | torch.device | None = None,
    types: Sequence[type] = (),
    migrate: Callable[[Tree], Tree] | None = None,
    verify: bool = True,
    **options: Any,
) -> tuple[Tree, Manifest]:
    """Like :func:`load`, with the manifest."""
    by_path = PathOptions.of(**options)
    if like is None and (by_path.rename or by_path.cast or by_path.partial):
        raise ConfigurationError("rename, cast and partial need the tree to fit to: give like=")
    if like is None and migrate is not None and by_path.only is not None:
        raise ConfigurationError("only and migrate together need the tree to fit to: give like=")
    target = None if device is None else torch.device(device)

    def attempt(place: Path) -> tuple[Tree, Manifest]:
        source = assemble.Source(
            path=place, manifest=manifest_at(place), types=types, device=target, verify=verify
        )
        return assemble.fitted(source, like, by_path, migrate), source.manifest

    return retry_while_replaced(path, attempt)


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
    return retry_while_replaced(path, manifest_at)


def read_entry(path: str | Path) -> tuple[int | None, Entry]:
    """Step, metrics and time alone, which is quick for any number of leaves."""

    def attempt(place: Path) -> tuple[int | None, Entry]:
        data = manifest_bytes(place)
        with manifest_errors(place):
            return parse_entry(data)

    return retry_while_replaced(path, attempt)


def verify(path: str | Path) -> Manifest:
    """Read all bytes of a checkpoint and make sure that they are those that were saved.

    Raises:
        The errors of :func:`load`, but for those about structure.
    """

    def attempt(place: Path) -> Manifest:
        manifest = manifest_at(place)
        with readable(place):
            reading.verify(place, manifest.files, manifest.leaves)
        return manifest

    return retry_while_replaced(path, attempt)


def is_intact(path: str | Path) -> bool:
    """Whether a checkpoint verifies; errors that are not damage are raised."""
    try:
        verify(path)
    except CheckpointCorruptError:
        return False
    return True


def locate(path: str | Path) -> Path:
    """The absolute path of a checkpoint, or of the older one that stands in for it for a moment."""
    absolute = Path(path).absolute()
    with readable(absolute):
        return present(absolute)


def retry_while_replaced(path: str | Path, attempt: Callable[[Path], T]) -> T:
    """Read a checkpoint, again if another one took its place meanwhile.

    Where others come faster than it can be read, they have to wait for the last attempt.
    """
    for _ in range(_MOST_ATTEMPTS):
        place = locate(path)
        before = _identity(place)
        try:
            return attempt(place)
        except (CheckpointCorruptError, NoCheckpointError):
            # The same may have been renamed, to make room for the next.
            if before is not None and place == locate(path) and before == _identity(place):
                raise
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no such directory, or none that may be listed
            stack.enter_context(turn(Path(path).absolute().parent))
        return attempt(locate(path))


def _identity(place: Path) -> bytes | None:
    """What tells one checkpoint at a place from the next; numbers of inodes are used again."""
    try:
        return manifest_bytes(place)
    except (CheckpointCorruptError, NoCheckpointError):
        return None


def manifest_at(place: Path) -> Manifest:
    """The manifest at a place, which another checkpoint may take meanwhile."""
    data = manifest_bytes(place)
    with manifest_errors(place):
        return parse(data)


def manifest_bytes(place: Path) -> bytes:
    """The manifest of a checkpoint as it stands in its file."""
    if not place.is_dir():
        raise missing(place)
    with readable(place):
        try:
            return _contents(place / MANIFEST)
        except FileNotFoundError as error:
            if list_steps(place):
                raise missing(place) from error
            raise CheckpointCorruptError(f"{place} has no {MANIFEST}") from error


def _contents(path: Path) -> bytes:
    with opened(path) as descriptor:
        status = os.fstat(descriptor)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointCorruptError(f"{path} is not a regular file")
        if size > _LARGEST_MANIFEST:
            raise CheckpointCorruptError(f"{path} is too long for a manifest: {size:,} bytes")
        data = bytearray(size)
        read = read_into(descriptor, memoryview(data), 0)
        return bytes(data[:read])
