"""Trees of tensors and scalars: walk, map, copy, compare bit for bit, hash, print.

Begin with ``nodes.py`` (walking) and ``compare.py``.
"""

from functrain.tree.compare import Difference, Differences, diff, equal, to_bytes
from functrain.tree.frozen_dict import FrozenDict, NamedDict, frozen, kind, thawed
from functrain.tree.hashing import digest
from functrain.tree.nodes import (
    Leaf,
    Path,
    Tree,
    children,
    flatten,
    is_node,
    items,
    map,
    map_with_path,
    path_string,
    rebuild,
)
from functrain.tree.printing import summary, text, totals

__all__ = [
    "Difference",
    "Differences",
    "FrozenDict",
    "Leaf",
    "NamedDict",
    "Path",
    "Tree",
    "children",
    "diff",
    "digest",
    "equal",
    "flatten",
    "frozen",
    "is_node",
    "items",
    "kind",
    "map",
    "map_with_path",
    "path_string",
    "rebuild",
    "summary",
    "text",
    "thawed",
    "to_bytes",
    "totals",
]
