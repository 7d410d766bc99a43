"""``functrain init``: a new project trains, and its tests pass, as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
import pytest

Run = Callable[..., Any]


@pytest.mark.slow
def test_a_new_project_trains_and_its_tests_pass(functrain: Run, tmp_path: Path) -> None:
    project = tmp_path / "my_project"
    made = functrain("init", project, width=200)
    assert made.code == 0
    assert f"cd {project}" in made.out

    def run(*words: str) -> str:
        ended = processes.run("-m", *words, cwd=project, env={**os.environ, "COLUMNS": "100"})
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    best = [line for line in run("functrain", "train", "train.yaml").splitlines() if "best" in line]
    assert float(best[-1].split()[1]) > 0.95
    assert "nothing to train" in run("functrain", "train", "train.yaml")
    assert "4 passed" in run("pytest", "-q", "-p", "no:cacheprovider")


def test_nothing_is_overwritten(functrain: Run, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("precious")
    refused = functrain("init", tmp_path)
    assert refused.refuses(f"{tmp_path / 'model.py'} exists")
    assert [path.name for path in tmp_path.iterdir()] == ["model.py"]
    assert (tmp_path / "model.py").read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_one_line(functrain: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    refused = functrain("init", tmp_path / "file" / "project")
    assert refused.refuses("cannot make a project in")
