"""Trees of tensors and scalars: walk, compare bit for bit, show."""

from functrain.tree.compare import Difference, diff, digest, equal, to_bytes
from functrain.tree.display import html, summary, text, totals
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

__all__ = [
    "Difference",
    "Leaf",
    "Path",
    "Tree",
    "children",
    "diff",
    "digest",
    "equal",
    "flatten",
    "html",
    "is_node",
    "items",
    "map",
    "map_with_path",
    "path_string",
    "rebuild",
    "summary",
    "text",
    "to_bytes",
    "totals",
]
