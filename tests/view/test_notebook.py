"""IPython shows functrain's values as HTML, and imports view only then."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import failures_in_forks

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
    for (module, name), (file, function) in notebook._SHOWN_BY.items():
        assert getattr(import_module(module), name).__name__ == name
        assert callable(getattr(import_module(f"functrain.view.{file}"), function))


def test_a_shell_shows_values_and_subclasses(formatter: Any) -> None:
    differences = ft.tree.diff({"w": 1}, {"w": 2})
    for value in (schedules.Cosine(0.1), Halved(0.1), ft.History([]), differences):
        assert formatter(value) == html(value) is not None


def test_html_of_a_subclass_comes_first(formatter: Any) -> None:
    assert formatter(Titled(0.1)) == html(Titled(0.1)) == "<h1>mine</h1>"


def test_other_values_and_classes_are_left_alone(formatter: Any) -> None:
    assert formatter(0.1) is None
    assert formatter(ft.History) is None


def test_importing_registers_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
"""
    shown = """
assert [name for name in sys.modules if name.startswith("functrain.view.")] == [
    "functrain.view.notebook"
]
html = shell.display_formatter.format(functrain.schedules.Cosine(0.1))[0]["text/html"]
assert html.startswith("<div")
"""
    load = 'shell.run_line_magic("load_ext", "functrain.view.notebook")'
    pieces = {
        "IPython first": f"{shell}import functrain{shown}",
        "functrain first": f"import functrain, functrain.view.notebook{shell}{load}{shown}",
    }
    assert failures_in_forks(pieces) == dict.fromkeys(pieces, "")


def test_a_shell_without_a_formatter_is_left_alone() -> None:
    notebook.load_ipython_extension(SimpleNamespace(display_formatter=None))


def test_no_class_knows_html() -> None:
    package = Path(ft.__file__).parent
    found = {path.name for path in package.rglob("*.py") if "_repr_html_" in path.read_text()}
    assert found == {"notebook.py"}
