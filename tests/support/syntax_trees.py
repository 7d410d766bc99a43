"""The nodes of Python source, several times as fast as ``ast.walk`` lists them."""

from __future__ import annotations

import ast
from typing import Any


def nodes(tree: ast.AST) -> list[ast.AST]:
    """Return a node and all below it, level by level."""
    found: list[Any] = [tree]
    for node in found:  # which grows
        for child in vars(node).values():
            if isinstance(child, ast.AST):
                found.append(child)
            elif isinstance(child, list):
                found += [each for each in child if isinstance(each, ast.AST)]
    return found
