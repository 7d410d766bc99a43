"""Compare states of torch's optimizers and schedulers, which gain entries in use.

A state of ``from_torch`` has no moments before the first step, so a later checkpoint has more
entries, and torch does not declare which. Two such states are compatible if one has every entry of
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from functrain.checkpoint.format.records import Declared
from functrain.checkpoint.format.scalars import Json
from functrain.checkpoint.format.structure import decode_node
from functrain.core.optimizer import TORCH_MADE_BY as MADE_BY
from functrain.core.optimizer import TORCH_STATE as OPTIMIZER
from functrain.schedules.torch_schedule import TORCH_STATE as SCHEDULER
from functrain.tree import Path, path_string

_MAPPINGS = ("dict", "OrderedDict")


def is_torch_state(like: Any) -> bool:
    """Return whether a tree is the state of a ``from_torch`` optimizer or schedule."""
    return isinstance(like, dict) and (like.keys() == OPTIMIZER or like.keys() == SCHEDULER)


def is_of_layout(json: Json, like: dict[str, Any]) -> bool:
    """Return whether a saved structure has the top-level entries of such a state."""
    return type(json) is dict and json.keys() == like.keys()


def torch_state_mismatches(
    json: Json, leaves: Sequence[Declared], like: Any, path: Path, found: list[str]
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
