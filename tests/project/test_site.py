"""The documentation is complete, its code runs, and it builds without warnings or network."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import documents
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
# Other tests run or read these pages.
ELSEWHERE = {"checkpoint-format.md", "compiled.md", "measurements.md"}


OWN = [page for page in PAGES if documents.blocks(DOCS / page) and page not in ELSEWHERE]


@pytest.mark.parametrize(
    "page",
    # The cookbook trains for longer than other pages.
    [
        pytest.param(page, marks=[pytest.mark.long] if page.startswith("cookbook/") else [])
        for page in OWN
    ],
)
def test_the_code_on_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page == "from/transformers.md":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    documents.run(DOCS / page)


def test_every_block_is_python_yaml_or_text() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for language in re.findall(r"^```(\w*)$", path.read_text(), re.MULTILINE):
            assert language in ("", "python", "yaml"), path


def test_the_first_program_equals_the_readme() -> None:
    first, *_ = documents.blocks(ROOT / "README.md")
    assert documents.blocks(DOCS / "index.md") == [first]


def pages(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in pages(child)]


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(pages(nav)) == sorted([*PAGES, *notebooks])


def test_every_public_module_has_a_page_of_the_reference() -> None:
    # The names of training are those of functrain; the command line has no functions for users.
    inner = {"functrain.cli", "functrain.training"}
    found = set()
    for path in (ROOT / "functrain").glob("*/__init__.py"):
        names = [
            node.targets[0].id
            for node in ast.parse(path.read_text()).body  # type: ignore[attr-defined]
            if isinstance(node, ast.Assign)
        ]
        if "__all__" in names:
            found.add(f"functrain.{path.parent.name}")
    assert found - inner <= reference()


def reference() -> set[str]:
    """Return the modules and classes that have a page of the reference."""
    pages = [page.read_text() for page in (DOCS / "reference").glob("*.md")]
    return set(re.findall(r"^::: ([\w.]+)$", "\n".join(pages), re.MULTILINE))


def public_names() -> set[str]:
    """Return the public names on these pages, except those that have a page of their own."""
    modules = [importlib.import_module(name) for name in reference()]
    names = {f"{m.__name__}.{name}" for m in modules for name in getattr(m, "__all__", ())}
    return names - reference()


def test_every_name_in_the_guides_exists() -> None:
    import functrain as ft

    for page in [*OWN, "index.md", "errors.md"]:
        for name in set(re.findall(r"\bft((?:\.[A-Za-z]\w+)+)", (DOCS / page).read_text())):
            found: Any = ft
            for part in name[1:].split("."):
                assert hasattr(found, part), (page, name)
                found = getattr(found, part)


@pytest.mark.long
@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [*command, "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    optimizers = (tmp_path / "reference" / "optim.html").read_text()
    assert "Loshchilov" in optimizers
    assert "betas" in optimizers
    reference = "".join(page.read_text() for page in (tmp_path / "reference").glob("*.html"))
    assert public_names() - set(re.findall(r'id="(functrain[\w.]*)"', reference)) == set()
    assert '<span class="gp">&gt;&gt;&gt; </span>' in optimizers
    for quotation in re.findall(r"<blockquote>.*?</blockquote>", reference, re.DOTALL):
        assert "import " not in quotation  # an example is code
    home = (tmp_path / "index.html").read_text()
    for shown in ("<b>TrainState</b>", "<b>1 difference</b>", "<iframe srcdoc="):
        assert shown in home
    for picture in re.findall(r'src="(notebooks/[^"]*)"', home):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert home.count('src="notebooks/') == 1
    for page in tmp_path.rglob("*.html"):  # nothing is fetched from elsewhere
        fetched = re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', page.read_text()
        )
        assert not fetched, page
