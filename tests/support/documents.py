"""The code on a page of Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def blocks(page: Path, language: str = "python") -> list[str]:
    """Return the blocks of a language in their order."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def run(page: Path) -> dict[str, Any]:
    """Run the Python of a page from top to bottom, and return the names that it defines."""
    names: dict[str, Any] = {"__name__": page.stem}
    found = blocks(page)
    assert found
    for block in found:
        exec(compile(block, str(page), "exec"), names)
    return names
