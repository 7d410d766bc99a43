"""The code on pages runs, the names and paths on them exist, and the site builds."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import yaml

import functrain as ft

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FORMAT = DOCS / "checkpoint-format.md"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the blocks of a language in their order."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def runnable() -> list[Any]:
    """Return the pages with code; the cookbook trains for longer than others."""
    found = [page for page in PAGES if blocks(page) and page != "docs/checkpoint-format.md"]
    long = [pytest.mark.long]
    return [pytest.param(page, marks=long if "cookbook" in page else []) for page in found]


@pytest.mark.parametrize("page", runnable())
def test_the_code_on_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page == "docs/from/transformers.md":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)


MODULE = """
import torch
import functrain as ft
class Net(torch.nn.Linear):
    def __init__(self, width):
        super().__init__(3, 1)
def loss(model, batch):
    return model(batch[0]).square().mean()
def training_data(batch_size):
    return ft.data.Batches((torch.randn(64, 3),), batch_size)
def validation_data():
    return training_data(16)
"""


def test_the_configuration_of_the_readme_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from functrain import config

    (block,) = blocks("README.md", "yaml")
    (tmp_path / "mine.yaml").write_text(block)
    (tmp_path / "mymodel.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "mymodel", raising=False)  # of another test's folder
    loaded = config.load(str(tmp_path / "mine.yaml"))
    with config.importable(loaded):
        built = config.build(loaded.config)
    until = loaded.config.fit.until
    run = ft.fit(built.program, built.data, until=until, eval_data=built.eval_data)
    assert run.state.counters.epoch == 20


def test_a_checkpoint_is_read_without_functrain(tmp_path: Path) -> None:
    *_, reader = blocks("docs/checkpoint-format.md")
    imports = set(re.findall(r"^ *(?:import|from) (\w+)", reader, re.MULTILINE))
    assert imports <= {"safetensors", "xxhash", *sys.stdlib_module_names}
    (tmp_path / "reader.py").write_text(reader)
    path = ft.save(tmp_path / "c", {"params": {"w": torch.ones(3), "b": torch.zeros(2)}}, step=7)
    assert processes.run("reader.py", str(path), cwd=tmp_path).stdout == "7 ['b', 'w']\n"
    file = path / "params.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    damaged = processes.run("reader.py", str(path), cwd=tmp_path).stderr
    assert re.search(r"params\.[bw] is damaged", damaged)


def test_the_way_of_a_batch_in_contributing_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| `(functrain/[\w/]+\.py)` \| `(\w+)` \|", text_of("CONTRIBUTING.md"), re.M
    )
    assert rows
    for path, name in rows:
        assert re.search(rf"^ *(?:def|class) {name}\b", text_of(path), re.M), (path, name)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_named_paths_exist(page: str) -> None:
    folders = "functrain|tests|docs|benchmarks|property_tests"
    for path in re.findall(rf"`((?:{folders})/[\w/.]*)", text_of(page)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_the_names_on_a_page_exist(page: str) -> None:
    text = text_of(page)
    for name in re.findall(r"\bft((?:\.[A-Za-z]\w+)+)", text):
        found: Any = ft
        for part in name[1:].split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)
    foreign = {"AssertionError", "ValueError", "KeyError", "TypeError", "DeprecationWarning"}
    for name in re.findall(r"`(?:\w+\.)*([A-Z]\w+(?:Error|Warning))`", text):
        assert name in foreign or hasattr(ft.errors, name), name


def listed(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in listed(child)]


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load(text_of("mkdocs.yml"))["nav"]
    notebooks = [f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")]
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")]
    assert sorted(listed(nav)) == sorted([*pages, *notebooks])


def public_names() -> set[str]:
    """Return the public names of the modules that have a page of the reference."""
    pages = [page.read_text() for page in (DOCS / "reference").glob("*.md")]
    entries = set(re.findall(r"^::: ([\w.]+)$", "\n".join(pages), re.MULTILINE))
    modules = [importlib.import_module(name) for name in entries]
    return {f"{m.__name__}.{n}" for m in modules for n in getattr(m, "__all__", ())} - entries


@pytest.mark.long
@pytest.mark.slow
def test_the_site_builds_without_a_warning_or_the_network(tmp_path: Path) -> None:
    for package in ("mkdocs", "mkdocstrings_handlers.python", "material"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    reference = "".join(page.read_text() for page in (tmp_path / "reference").glob("*.html"))
    assert public_names() - set(re.findall(r'id="(functrain[\w.]*)"', reference)) == set()
    for page in tmp_path.rglob("*.html"):
        fetched = r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//'
        assert not re.search(fetched, page.read_text()), page
