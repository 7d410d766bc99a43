"""IPython shows functrain's values as HTML, and imports view only then."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import functrain as ft
from functrain import schedules
from functrain.view import html, notebook

formatters = pytest.importorskip("IPython.core.formatters")


@pytest.fixture
def formatter() -> Any:
    """Return the HTML formatter of a shell that knows functrain."""
    display = formatters.DisplayFormatter()
    notebook.load_ipython_extension(SimpleNamespace(display_formatter=display))
    return display.formatters["text/html"]


class Halved(schedules.Linear):
    """A subclass without HTML of its own."""


class Titled(schedules.Linear):
    def _repr_html_(self) -> str:
        return "<h1>mine</h1>"


def test_each_class_is_where_its_name_says() -> None:
    for (module, name), shown_by in notebook._SHOWN_BY.items():
        assert getattr(import_module(module), name).__name__ == name
        assert callable(import_module(f"functrain.view.{shown_by}").html)


def test_a_shell_shows_values_and_subclasses(formatter: Any) -> None:
    differences = ft.tree.diff({"w": 1}, {"w": 2})
    for value in (schedules.Cosine(0.1), Halved(0.1), ft.History([]), differences):
        assert formatter(value) == html(value) is not None


def test_html_of_a_subclass_comes_first(formatter: Any) -> None:
    assert formatter(Titled(0.1)) == html(Titled(0.1)) == "<h1>mine</h1>"


def test_other_values_and_classes_are_left_alone(formatter: Any) -> None:
    assert formatter(0.1) is None
    assert formatter(ft.History) is None


@pytest.mark.parametrize("first", ["functrain", "IPython"])
def test_importing_registers_names_only(first: str, tmp_path: Path) -> None:
    code = f"""
import sys
if {first == "IPython"}:
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
import functrain as ft
if {first == "functrain"}:
    import functrain.view.notebook
    from IPython.core.interactiveshell import InteractiveShell
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "functrain.view.notebook")
print(*[name for name in sys.modules if name.startswith("functrain.view.")])
print(shell.display_formatter.format(ft.schedules.Cosine(0.1))[0]["text/html"][:4])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "IPYTHONDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["functrain.view.notebook", "<div"]


def test_a_shell_without_a_formatter_is_left_alone() -> None:
    notebook.load_ipython_extension(SimpleNamespace(display_formatter=None))


def test_no_class_knows_html() -> None:
    package = Path(ft.__file__).parent
    found = {path.name for path in package.rglob("*.py") if "_repr_html_" in path.read_text()}
    assert found == {"notebook.py"}
