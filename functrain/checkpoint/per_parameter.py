"""Fit ``like`` to the per-parameter step counts that an optimizer has saved.

The optimizers of ``functrain.optim`` give a parameter a separate step count when it first has no
gradient (``functrain.optim.update_counts``). States with and without such entries are compatible:
a new state fits a checkpoint of an optimizer that skipped parameters, and vice versa. If a
checkpoint is loaded in part, a parameter whose moments it lacks keeps its own count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import chain
from typing import Any

from torch import Tensor

from functrain import tree
from functrain.tree import Tree

_NAME = "per_parameter"
# {path of the optimizer's state: {scalar: paths of parameters}}
_Saved = dict[str, dict[str, list[str]]]


def match_per_parameter(
    like: Tree, names: Collection[str], wants: Callable[[str], bool], partial: bool = False
) -> Tree:
    """Return ``like`` with exactly the per-parameter entries that a checkpoint has.

    Example:
        >>> import torch
        >>> like = {"step": torch.tensor(0.0), "exp_avg": {"w": torch.zeros(2)}}
        >>> names = ["step", "exp_avg.w", "per_parameter.step.w"]
        >>> match_per_parameter(like, names, lambda name: True)["per_parameter"]
        {'step': {'w': tensor(0.)}}
    """
    saved: _Saved = {}
    for name in names:
        place, found, entry = f".{name}".partition(f".{_NAME}.")
        scalar, dot, path = entry.partition(".")
        if found and dot:
            saved.setdefault(place, {}).setdefault(scalar, []).append(path)
    loaded = {name for name in names if wants(name)} if partial else None
    return _match(like, "", saved, wants, loaded)


def _match(
    node: Tree,
    place: str,
    saved: _Saved,
    wants: Callable[[str], bool],
    loaded: Collection[str] | None,
) -> Tree:
    if not tree.is_node(node):
        return node
    old = tree.children(node)
    new = [_match(child, f"{place}.{key}", saved, wants, loaded) for key, child in old]
    if any(one is not child for one, (_, child) in zip(new, old, strict=True)):
        node = tree.rebuild(node, new)
    if isinstance(node, dict) and isinstance(node.get("step"), Tensor):
        fresh = _without_moments(node, place, loaded) if loaded is not None else []
        return _with_entries(node, place, saved.get(place, {}), wants, fresh)
    return node


def _without_moments(state: dict[str, Any], place: str, loaded: Collection[str]) -> list[str]:
    """Return the parameters without a loaded moment, if the shared count is loaded."""
    if f"{place}.step"[1:] not in loaded or "params" in state:  # the latter is an average
        return []
    slots = {
        name: values
        for name, values in state.items()
        if name != _NAME and isinstance(values, Mapping)
    }
    found = {
        path for name in slots for path in slots[name] if f"{place}.{name}.{path}"[1:] in loaded
    }
    return [path for path in dict.fromkeys(chain(*slots.values())) if path not in found]


def _with_entries(
    state: dict[str, Any],
    place: str,
    saved: dict[str, list[str]],
    wants: Callable[[str], bool],
    fresh: list[str],
) -> dict[str, Any]:
    own, found = state.get(_NAME, {}), dict[str, dict[str, Tensor]]()

    def wanted(scalar: str, paths: Collection[str]) -> set[str]:
        prefix = f"{place}.{_NAME}.{scalar}."[1:]
        return {path for path in paths if wants(prefix + path)}

    scalars = [name for name, value in state.items() if isinstance(value, Tensor) and fresh]
    for scalar in dict.fromkeys([*own, *saved, *scalars]):
        if isinstance(state.get(scalar), Tensor):
            ours, theirs = own.get(scalar, {}), saved.get(scalar, [])
            kept, loaded = ours.keys() - wanted(scalar, ours), wanted(scalar, theirs)
            places = dict.fromkeys([*ours, *theirs, *fresh])
            paths = [path for path in places if path in {*kept, *loaded, *fresh}]
            found[scalar] = {path: ours.get(path, state[scalar]) for path in paths}
    found = {scalar: entries for scalar, entries in found.items() if entries}
    rest = {name: value for name, value in state.items() if name != _NAME}
    return {**rest, _NAME: found} if found else rest
