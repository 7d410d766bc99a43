"""The wheel is complete, its command runs, and other packages can use its types."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BUILT_FROM = ["pyproject.toml", "setup.cfg", "README.md", "LICENSE"]

OUTSIDE = """\
import torch
import functrain as ft

program = ft.program(torch.nn.Linear(4, 1), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
state, metrics = program.train_step(program.init(seed=0), torch.ones(2, 4))
reveal_type(state)
reveal_type(ft.load("run", like=state))
reveal_type(ft.load("run"))
program.init(seed="0")
"""


def ended(command: list[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def copied_source(place: Path) -> Path:
    """Copy the sources of the package, so that builds leave no files here."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "functrain", place / "functrain", ignore=ignored)
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, place)
    return place


def packages_of(place: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(place)}))


def environment(place: Path) -> Path:
    """Return the interpreter of a new environment that shares the packages installed here."""
    venv.create(place, symlinks=True)
    (packages_of(place) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    source = copied_source(tmp_path_factory.mktemp("built") / "source")
    arguments = ["-m", "build", "--wheel", "--no-isolation", "--outdir", "out"]
    done = ended([sys.executable, *arguments], source)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((source / "out").glob("*.whl"))


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel; it shares everything else with this one."""
    place = tmp_path_factory.mktemp("clean")
    python = environment(place)
    zipfile.ZipFile(wheel).extractall(packages_of(place))
    return python


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "functrain").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert "functrain/py.typed" in held


@pytest.mark.slow
@pytest.mark.long
def test_the_command_of_the_wheel_trains_an_example(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    code = (
        "import functrain, sys; print(functrain.__file__); from functrain.cli import main; main()"
    )
    options = ["fit.until=5 steps", "directory=run"]
    done = ended([clean, "-c", code, "train", "digits", *options], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(clean.parent.parent))
    assert (tmp_path / "run" / "step-00000005" / "manifest.json").exists()


@pytest.mark.long
@pytest.mark.slow
def test_its_types_are_visible_outside(clean: Path, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "outside.py").write_text(OUTSIDE)
    arguments = ["--strict", "--config-file", os.devnull, "outside.py"]
    arguments += ["--python-executable", clean]
    done = ended([sys.executable, "-m", "mypy", *arguments], tmp_path)
    revealed = [line.split(": ", 2)[2] for line in done.stdout.splitlines() if "note:" in line]
    state = 'Revealed type is "functrain.core.state.TrainState"'
    assert revealed == [state, state, 'Revealed type is "Any"'], done.stdout
    assert 'outside.py:9: error: Argument "seed" to "init"' in done.stdout
    assert "Found 1 error" in done.stdout


def test_versions_agree() -> None:
    import functrain

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert functrain.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_imports_of_the_core_are_its_dependencies() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    known = {re.split(r"[<>=\[]", one)[0].replace("pyyaml", "yaml") for one in named}
    rooms = ("errors", "tree", "core", "schedules", "optim", "data", "metrics", "transforms")
    found = {"functrain"}
    for room in (*rooms, "checkpoint", "training", "distributed"):
        for path in (ROOT / "functrain" / room).rglob("*.py"):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    assert found - set(sys.stdlib_module_names) - {"functrain"} <= known
