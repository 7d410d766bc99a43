"""Which file of functrain imports which, read from the source without importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeGuard

Graph = dict[str, set[str]]

# A room imports only from itself and from rooms before it.
ROOMS = (
    *("errors", "tree", "core", "own_steps", "metrics", "schedules", "diagnosis", "optim", "data"),
    *("distributed", "transforms", "plotting", "checkpoint", "training", "populations"),
    *("view", "listeners", "finders", "generation", "search", "config", "testing"),
    *("cli", "examples"),
)

# Code that has failed imports what explains it, from any room.
EXPLAINS = "functrain.diagnosis"


def modules(root: Path) -> dict[str, Path]:
    """Return the file of each module below a folder that holds ``functrain/``."""
    found = {}
    for path in sorted((root / "functrain").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def import_graph(root: Path) -> Graph:
    """Return the modules that each module imports.

    Imports inside functions, except those of ``EXPLAINS``, and under ``TYPE_CHECKING`` count, and
    so does ``import_module("functrain.room")``. A name imported from the face (``from functrain
    import fit``) counts as an import of the module that defines it.
    """
    files = modules(root)
    trees = {name: ast.parse(path.read_text()) for name, path in files.items()}
    face = {
        alias.asname or alias.name: _target(module, alias.name, files)
        for module, alias in _imported(trees["functrain"])
        if alias is not None
    }
    graph: Graph = {}
    for name, source in trees.items():
        targets = {
            module
            if alias is None
            else face.get(alias.name, "functrain")
            if module == "functrain" and f"functrain.{alias.name}" not in files
            else _target(module, alias.name, files)
            for module, alias in _imported(source)
        }
        graph[name] = targets - {name}
    return graph


def _imported(source: ast.AST) -> Iterator[tuple[str, ast.alias | None]]:
    """Yield (module, name imported from it); the name is ``None`` for ``import module``."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found: Iterable[tuple[str, ast.alias | None]] = [(a.name, None) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write the import with its full name"
            if (node.module or "").startswith(EXPLAINS) and node not in vars(source)["body"]:
                continue
            found = [(node.module or "", alias) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found = [(one.value, None) for one in node.args if _is_text(one)]
        else:
            continue
        yield from (pair for pair in found if pair[0].split(".")[0] == "functrain")


def _is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _target(module: str, name: str, files: dict[str, Path]) -> str:
    return f"{module}.{name}" if f"{module}.{name}" in files else module


def closure(graph: Graph, start: str) -> set[str]:
    """Return the modules that importing one pulls in: itself, its packages, and theirs.

    The face is left out, since it imports nothing by itself.
    """
    found: set[str] = set()
    waiting = {start}
    while waiting:
        name = waiting.pop()
        if name == "functrain" or name in found:
            continue
        found.add(name)
        waiting |= {*graph[name], name.rpartition(".")[0]}
    return found


def circles(graph: Graph) -> set[tuple[str, str]]:
    """Return the imports (from, to) that lie on a circle within one room."""
    inside = {name: {t for t in graph[name] if room(t) == room(name)} for name in graph}
    reached = {name: _reached(inside, name) for name in graph}
    return {(name, t) for name, targets in inside.items() for t in targets if name in reached[t]}


def _reached(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = {start}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= graph[name] - found
    return found


def room(module: str) -> str:
    """Return the room of a module, such as ``optim``; the face is its own."""
    return module.split(".")[1] if "." in module else ""
