"""Private parts of torch and Python are used in few files, each the only door to what it uses."""

from __future__ import annotations

import ast
from pathlib import Path

import functrain

PACKAGE = Path(functrain.__file__).parent
DOORS = {
    "diagnosis/anomaly.py",
    "optim/methods/adagrad.py",
    "testing/global_state.py",
    "transforms/torch_internals.py",
    "tree/torch_internals.py",
}
# Kernels of several tensors, by which torch's own optimizers update, and the registry of pytrees.
OPEN = ("_foreach_", "_fused_", "_pytree")


def private_names(path: Path) -> set[str]:
    """Return the private parts of torch and the standard library that a file names."""
    found = set()
    tree = ast.parse(path.read_text())
    modules = {"torch", "sys", "ctypes", "gc"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and node.attr == "_cdata":
            found.add("torch._cdata")
        elif isinstance(node, ast.Import | ast.Attribute):
            text = ast.unparse(node).removeprefix("import ")
            found.add(text)
    return {name for name in found if name.split(".")[0] in modules and is_private(name)}


def is_private(name: str) -> bool:
    parts = [part for part in name.split(".") if part.startswith("_") and not part.startswith("__")]
    return any(not part.startswith(OPEN) for part in parts)


def test_private_parts_of_torch_are_behind_few_doors() -> None:
    used = {
        str(path.relative_to(PACKAGE)): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if (names := private_names(path))
    }
    assert used.keys() == DOORS, {path: used[path] for path in used if path not in DOORS}


def test_no_file_reaches_below_python() -> None:
    storage = PACKAGE / "checkpoint"  # aligned memory for writes past the page cache
    for path in PACKAGE.rglob("*.py"):
        words = ["getrefcount", "get_referrers", "get_referents"]
        words += [] if path.is_relative_to(storage) else ["ctypes"]
        assert not [word for word in words if word in path.read_text()], path
