"""Assemble the requested tree from a checkpoint: compare structures first, then read bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from functrain import tree
from functrain.checkpoint.by_path import PathMatch, match_by_path
from functrain.checkpoint.format.changed_in_use import match_per_parameter
from functrain.checkpoint.format.decoding import Anything
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.encoding import encode
from functrain.checkpoint.format.mismatches import mismatches
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.manifest_file import manifest_errors
from functrain.checkpoint.path_options import (
    DROPPED,
    PathOptions,
    entries,
    indices,
    selected,
    without_classes,
)
from functrain.checkpoint.ranks import world_of
from functrain.checkpoint.reader import CheckpointReader, cut
from functrain.core.state import TrainState
from functrain.errors import CheckpointMismatchError, PartialLoadWarning
from functrain.errors.base import warn
from functrain.tree import Tree
from functrain.tree.placed import is_placed

_MOST_SHOWN = 20


def assemble(
    source: CheckpointReader,
    like: Any,
    options: PathOptions,
    migrate: Callable[[Tree], Tree] | None,
) -> Tree:
    if migrate is not None:
        return _load_migrated(source, like, migrate, options)
    if options == PathOptions():
        return _load_exactly(source, Anything if like is None else like)
    if like is None:
        return _load_selected(source, options)
    return _load_matching(source, like, options)


def _load_exactly(source: CheckpointReader, like: Any) -> Tree:
    """Return the tree as it was saved, if it has the structure of ``like``."""
    structure = source.manifest.structure
    with manifest_errors(source.path):
        like = match_per_parameter(like, dict(entries(structure)))
        problems = list(mismatches(structure, source.manifest.leaves, like, began=source.began))
    if problems:
        raise _mismatch(source, problems, like)
    tensors = source.tensors(like, placed=source.placed(structure, like))
    return source.decode(structure, tensors, like)


def _load_selected(source: CheckpointReader, options: PathOptions) -> Tree:
    """Return the leaves that ``only`` selects, without a ``like`` to fit."""
    with manifest_errors(source.path):
        structure = selected(source.manifest.structure, options.wants)
        wanted = set(indices(structure))
    if structure in (DROPPED, {}):
        globs = ", ".join(options.only or ())
        raise CheckpointMismatchError(source.path, [f"{globs}: no leaf has a matching path"])
    return source.decode(structure, source.tensors(Anything, wanted), Anything)


def _load_matching(source: CheckpointReader, like: Any, options: PathOptions) -> Tree:
    """Return ``like`` with its leaves replaced by those of the checkpoint."""
    found = _match(source, source.manifest.structure, source.manifest.leaves, like, options)
    with manifest_errors(source.path):
        wanted = {index for json in found.slots.values() for index in indices(json)}
    placed: dict[int, Tensor] = {}
    for path, json in found.slots.items() if world_of(like) else ():
        placed |= source.placed(json, _at(found.like, path))
    return _fill(source, found, source.tensors(Anything, wanted, placed), options.cast)


def _load_migrated(
    source: CheckpointReader, like: Any, migrate: Callable[[Tree], Tree], options: PathOptions
) -> Tree:
    """Apply ``migrate`` to the saved tree, then fit the result to ``like``."""
    structure = without_classes(source.manifest.structure)
    before = source.decode(structure, source.tensors(Anything), Anything)
    after = migrate(before)
    if like is None:
        return after
    json, tensors = encode(after)
    leaves = [
        Leaf(tree.path_string(path), dtype_name(tensor.dtype), tuple(tensor.shape), "", 0, 0, ())
        for path, tensor in tensors
    ]
    found = _match(source, json, leaves, like, options)
    return _fill(source, found, [tensor for _, tensor in tensors], options.cast)


def _match(
    source: CheckpointReader, json: Json, leaves: Sequence[Leaf], like: Any, options: PathOptions
) -> PathMatch:
    """Match a structure by path; raise if something does not fit, and warn of skipped leaves."""
    with manifest_errors(source.path):
        found = match_by_path(json, leaves, like, options, source.began)
    if found.problems:
        raise _mismatch(source, found.problems, like)
    if found.left:
        shown = [f"  {line}" for line in found.left[:_MOST_SHOWN]]
        rest = len(found.left) - len(shown)
        more = [f"  ... and {rest} more"] if rest else []
        listed = "\n".join([*shown, *more])
        warn(f"checkpoint {source.path} was loaded in part:\n{listed}", PartialLoadWarning)
    return found


def _mismatch(source: CheckpointReader, problems: list[str], like: Any) -> CheckpointMismatchError:
    error = CheckpointMismatchError(source.path, problems)
    saved = without_classes(source.manifest.structure)
    if isinstance(like, TrainState) and isinstance(saved, dict) and "train" in saved:
        error.add_note(
            "This is the checkpoint of a run; its training state is functrain.load(path).train, "
            "and with other options migrate=lambda run: run['train'] takes it"
        )
    elif all("buffers." in problem.partition(":")[0] for problem in problems):
        error.add_note(
            "Only buffers differ. If the forward pass changes their shapes, give program.init() as "
            "like= where they begin empty or as one number, or accept any buffers with "
            "attrs.evolve(like, buffers=functrain.checkpoint.Anything())"
        )
    return error


def _fill(source: CheckpointReader, found: PathMatch, tensors: list[Any], cast: bool) -> Tree:
    """Fill the slots of ``like``; dense tensors take device and, with ``cast``, dtype from it.

    Each node is built once, from its final children, because its class may validate them.
    """
    # Keeps the original alive too: otherwise a new object could reuse its id.
    moved: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def fill(path: tree.Path, leaf: Any) -> Any:
        if path not in found.slots:
            if not tree.is_node(leaf):
                return leaf
            below = [fill((*path, key), child) for key, child in tree.children(leaf)]
            return tree.rebuild(leaf, below)
        value = source.decode(found.slots[path], tensors, leaf)
        if not isinstance(value, Tensor) or not isinstance(leaf, Tensor):
            return value
        place = source.device or (value.device if leaf.is_meta else leaf.device)
        # A buffer whose shape the forward pass sets also has its dtype from there.
        dtype = leaf.dtype if cast and value.shape == leaf.shape else value.dtype
        if is_placed(leaf) and not is_placed(value):
            value = cut(value, leaf, dist.get_rank())
        # Leaves that share a tensor keep sharing it.
        key = id(value), place, dtype
        if key not in moved:
            moved[key] = value, value.to(place, dtype)
        return moved[key][1]

    return fill((), found.like)


def _at(node: Any, path: tree.Path) -> Any:
    for key in path:
        node = dict(tree.children(node))[key]
    return node
