"""Packages that the first test that uses them imports, and not every process that collects it."""

from __future__ import annotations

from typing import Any

import pytest


class Late:
    """A module by name; a test that uses it is skipped where its package is missing."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for __test__ and _mock_name in all of a module
            raise AttributeError(attribute)
        return getattr(pytest.importorskip(self._name), attribute)
