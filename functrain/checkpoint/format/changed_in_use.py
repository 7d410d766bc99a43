"""Fit the parts of a state that change in use: buffers, states of torch, counts per parameter.

Buffers: the forward pass may have set the shape of a saved one (per-channel observers, membrane
potentials, running caches), or it may belong to another model with the same parameters (a longer
table of positions). A run records the initial shapes and dtypes of its buffers; a state saved
without ``fit`` does not.

States of torch's optimizers and schedulers: one of ``from_torch`` has no moments before the first
step, so a later checkpoint has more entries, and torch does not declare which. Two such states are
compatible if one has every entry of the other.

Counts: the optimizers of ``functrain.optim`` give a parameter a separate step count when it first
has no gradient (``functrain.optim.update_counts``). States with and without such entries are
compatible: a new state fits a checkpoint of an optimizer that skipped parameters, and vice versa.
If a checkpoint is loaded in part, a parameter whose moments it lacks keeps its own count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.checkpoint.format.dtypes import dtype_name
from functrain.checkpoint.format.records import Leaf
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import decode_node
from functrain.core.buffers import may_become
from functrain.core.optimizer import TORCH_MADE_BY as MADE_BY
from functrain.core.optimizer import TORCH_STATE as OPTIMIZER
from functrain.tree import Path, Tree, path_string

# The initial form of each buffer in the run that was saved: {"shape": [1], "dtype": "float32"}.
Began = Mapping[str, Any]
# The keys of the states that functrain.schedules.from_torch makes, as the format has them.
SCHEDULER = frozenset({"lr", "group", "scheduler"})
_MAPPINGS = ("dict", "OrderedDict")
_COUNTS = "per_parameter"


def noted(info: Any) -> Began:
    """Return the initial forms that a run recorded; empty for checkpoints without ``fit``."""
    found = info.get("buffers") if isinstance(info, dict) else None
    return found if isinstance(found, dict) else {}


def described(buffer: Tensor) -> dict[str, Any]:
    """Return the form of a buffer as a run records it."""
    return {"shape": list(buffer.shape), "dtype": dtype_name(buffer.dtype)}


def changed_by_use(
    buffers: Mapping[str, Any], saved: Mapping[str, Json], leaves: Sequence[Leaf], began: Began
) -> set[str]:
    """Return the names of expected buffers that a run may have turned into the saved ones."""
    pairs = {name: (buffer, saved.get(name)) for name, buffer in buffers.items()}
    return {
        name
        for name, (buffer, json) in pairs.items()
        if isinstance(buffer, Tensor) and type(json) is dict and "$tensor" in json
        if _may_be_of(buffer, leaves[json["$tensor"]], began.get(name))
    }


def _may_be_of(buffer: Tensor, saved: Leaf, began: Any) -> bool:
    if began is not None:
        return bool(began == described(buffer))
    same_dtype = saved.dtype == dtype_name(buffer.dtype) or buffer.numel() == 0
    return same_dtype and may_become(buffer, saved.shape)


def is_torch_state(like: Any) -> bool:
    """Return whether a tree is the state of a ``from_torch`` optimizer or schedule."""
    return isinstance(like, dict) and (like.keys() == OPTIMIZER or like.keys() == SCHEDULER)


def is_of_layout(json: Json, like: dict[str, Any]) -> bool:
    """Return whether a saved structure has the top-level entries of such a state."""
    return type(json) is dict and json.keys() == like.keys()


def torch_state_mismatches(
    json: Json, leaves: Sequence[Leaf], like: Any, path: Path, found: list[str]
) -> None:
    """Append a line for each place where the two states are incompatible.

    Example:
        >>> found = []
        >>> torch_state_mismatches({"momentum": 0.9}, [], {"betas": 0.9}, ("group",), found)
        >>> found
        ["group: expected 'betas', the checkpoint has 'momentum': the state of another class"]
    """
    if isinstance(like, Tensor):
        saved = leaves[json["$tensor"]] if type(json) is dict and "$tensor" in json else None
        if saved is not None and saved.shape != like.shape:
            shapes = f"expected shape {list(like.shape)}, the checkpoint has {list(saved.shape)}"
            found.append(f"{path_string(path)}: {shapes}")
        return
    node = decode_node(json)
    if not isinstance(like, dict) or node is None or node.kind not in _MAPPINGS:
        return  # values may change type: None becomes a number, a number becomes a tensor
    theirs = dict(node.children)
    if MADE_BY in like:
        _compare_classes(theirs.pop(MADE_BY, None), like[MADE_BY]["class"], path, found)
    known = like.keys() - {MADE_BY}
    missing, added = _listed(known - theirs.keys()), _listed(theirs.keys() - known)
    if missing and added:
        found.append(
            f"{path_string(path)}: expected {missing}, the checkpoint has {added}: the state of "
            "another class"
        )
        return
    for key in (key for key in like if key in theirs):
        torch_state_mismatches(theirs[key], leaves, like[key], (*path, key), found)


def _compare_classes(json: Json, expected: str, path: Path, found: list[str]) -> None:
    saved = json.get("class") if type(json) is dict else None  # none is in those of old
    if saved not in (None, expected):
        found.append(
            f"{path_string(path)}: expected a state of {expected}, the checkpoint's is of {saved}"
        )


def _listed(keys: set[Any]) -> str:
    return ", ".join(sorted(map(repr, keys)))


def match_per_parameter(
    like: Tree,
    names: Collection[str],
    wants: Callable[[str], bool] = lambda name: True,
    partial: bool = False,
) -> Tree:
    """Return ``like`` with exactly the per-parameter entries that a checkpoint has.

    Example:
        >>> import torch
        >>> like = {"step": torch.tensor(0.0), "exp_avg": {"w": torch.zeros(2)}}
        >>> names = ["step", "exp_avg.w", "per_parameter.step.w"]
        >>> match_per_parameter(like, names)["per_parameter"]
        {'step': {'w': tensor(0.)}}
    """
    loaded = dict.fromkeys(name for name in names if wants(name))
    return _match(like, "", loaded, wants, partial)


def _match(
    node: Tree, place: str, loaded: Collection[str], wants: Callable[[str], bool], partial: bool
) -> Tree:
    if not tree.is_node(node):
        return node
    old = tree.children(node)
    new = [_match(child, f"{place}{key}.", loaded, wants, partial) for key, child in old]
    if any(one is not child for one, (_, child) in zip(new, old, strict=True)):
        node = tree.rebuild(node, new)
    if isinstance(node, dict) and isinstance(node.get("step"), Tensor):
        return _with_counts(node, place, loaded, wants, partial)
    return node


def _with_counts(
    state: dict[str, Any],
    place: str,
    loaded: Collection[str],
    wants: Callable[[str], bool],
    partial: bool,
) -> dict[str, Any]:
    """Return an optimizer's state with the counts to load, and its own that are not to change."""
    own, prefix, theirs = state.get(_COUNTS, {}), f"{place}{_COUNTS}.", dict[str, list[str]]()
    for name in loaded:
        scalar, dot, path = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and dot:
            theirs.setdefault(scalar, []).append(path)
    fresh = _without_moments(state, place, loaded) if partial else []
    found: dict[str, dict[str, Tensor]] = {}
    for scalar in dict.fromkeys([*own, *theirs, *state]):
        value, ours = state.get(scalar), own.get(scalar, {})
        kept = {path for path in ours if not wants(f"{prefix}{scalar}.{path}")}
        paths = {*kept, *theirs.get(scalar, []), *fresh}
        if isinstance(value, Tensor) and paths:
            places = dict.fromkeys([*ours, *theirs.get(scalar, []), *fresh])
            found[scalar] = {path: ours.get(path, value) for path in places if path in paths}
    rest = {name: value for name, value in state.items() if name != _COUNTS}
    return {**rest, _COUNTS: found} if found else rest


def _without_moments(state: dict[str, Any], place: str, loaded: Collection[str]) -> list[str]:
    """Return the parameters without a loaded moment, if the shared count is loaded."""
    if f"{place}step" not in loaded or "params" in state:  # the latter is an average
        return []
    slots = {
        name: values
        for name, values in state.items()
        if name != _COUNTS and isinstance(values, Mapping)
    }
    paths = dict.fromkeys(chain(*slots.values()))
    return [path for path in paths if not any(f"{place}{name}.{path}" in loaded for name in slots)]
