"""Load a checkpoint: check the structure, verify every byte, then build the tree."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack, overload

import torch
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint import assemble
from functrain.checkpoint.format.decoding import Anything
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.manifest_file import manifest_at, read_errors, retry_while_replaced
from functrain.checkpoint.path_options import PathOptions
from functrain.checkpoint.ranks import World, agree, own_group, world_of
from functrain.checkpoint.reader import CheckpointReader
from functrain.checkpoint.storage import reading
from functrain.errors import CheckpointCorruptError, CheckpointReadError, ConfigurationError
from functrain.tree import Tree

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

    With ``only``, ``rename``, ``cast``, ``partial`` or ``migrate``, leaves are matched by dotted
    path, and leaves of ``like`` that are not loaded stay as they are.

    Args:
        path: the checkpoint's directory.
        like: a tree of the structure expected; ``Anything`` in it accepts any subtree. Only
            classes, keys, shapes and dtypes count, so meta tensors suffice. Tensors keep their
            saved dtype unless ``cast`` is given. For a ``DTensor`` each rank reads its part only;
            then all ranks call this at the same time. A state of a ``from_torch`` optimizer or
            schedule may gain entries in use: ``program.init()`` fits a state after any step.
        device: the device of all tensors. By default each goes to its device in ``like``, else to
            the one it was saved from if this machine has it, else to the CPU.
        types: attrs, NamedTuple and Enum classes that may be instantiated, in addition to those in
            ``like`` and functrain's states. No other class is, and no code in the file runs.
        only: globs over paths (``"params"``, ``"*.bias"``) of leaves, or of nodes with all their
            leaves; no others are read. Without ``like``, a node that loses leaves becomes a dict.
        rename: new path by saved path, for a leaf or everything below a node; ``*`` is any text.
        cast: convert tensors to the dtype in ``like`` as ``Tensor.to`` does, but never complex
            to real or floating to integer. Values may be rounded or overflow.
        partial: skip leaves that only ``like`` or only the checkpoint has, and warn with a list.
        migrate: pure function from the saved tree, in which classes are dicts of their fields, to
            a tree that fits ``like``.
        verify: compare all bytes that are read with their saved hashes.

    Returns:
        The tree.

    Raises:
        NoCheckpointError: the path does not exist.
        CheckpointCorruptError: bytes differ from those saved; the message names file and leaf.
        CheckpointFormatError: a newer functrain wrote it.
        CheckpointMismatchError: it does not fit ``like``; the message lists all mismatches.
        CheckpointTypeError: it holds a class that neither ``like`` nor ``types`` allows.
        CheckpointReadError: the operating system could not read it.

    Warns:
        PartialLoadWarning: ``partial`` skipped leaves.

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
    world: World | None = None,
    **options: Any,
) -> tuple[Tree, Manifest]:
    """Load a checkpoint together with its manifest; see :func:`load`.

    If ``world`` is given, or ranks hold parts of ``like``, all of them load the same checkpoint.
    """
    by_path = PathOptions.of(**options)
    if like is None and (by_path.rename or by_path.cast or by_path.partial):
        raise ConfigurationError("rename, cast and partial need the tree to fit to: give like=")
    if like is None and migrate is not None and by_path.only is not None:
        raise ConfigurationError("only and migrate together need the tree to fit to: give like=")
    holders = world_of(like)
    if holders is not None and device is not None:
        raise ConfigurationError(
            f"expected no device for a like with DTensor leaves, got device={device!r}: their "
            "device mesh says where they are"
        )
    world = world or holders

    def attempt(place: Path) -> tuple[Tree, Manifest]:
        target = None if device is None else torch.device(device)
        source = CheckpointReader(place, manifest_at(place), types, target, verify)
        return assemble.assemble(source, like, by_path, migrate), source.manifest

    with own_group(world) as own:
        for _ in range(_MOST_ATTEMPTS):
            found = agree(own, lambda: retry_while_replaced(path, attempt))
            if own is None or _is_same(own, found[1]):
                return found
    cause = OSError(errno.EAGAIN, "another process keeps replacing it")
    raise CheckpointReadError(path, cause)


def _is_same(world: World, manifest: Manifest) -> bool:
    """Return whether all ranks have read one checkpoint, which none has replaced meanwhile."""
    return len(set(world.gathered(xxh3_128_hexdigest(manifest.to_bytes())))) == 1


def verify(path: str | Path) -> Manifest:
    """Read all bytes of a checkpoint and compare them with their saved hashes.

    Raises:
        The errors of :func:`load`, except those about structure.
    """

    def attempt(place: Path) -> Manifest:
        manifest = manifest_at(place)
        with read_errors(place):
            reading.verify(place, manifest.files, manifest.leaves)
        return manifest

    return retry_while_replaced(path, attempt)


def is_intact(path: str | Path) -> bool:
    """Return whether a checkpoint verifies; raise errors other than damage."""
    try:
        verify(path)
    except CheckpointCorruptError:
        return False
    return True
