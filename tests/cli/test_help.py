"""``functrain --help``, ``--version`` and completion, in processes of their own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import functrain
from functrain.cli.entry_point import app
from functrain.cli.options import sources

COMMANDS = [
    *("train", "init", "ls", "show", "diff", "verify", "export", "prune", "plot", "report"),
    *("search", "generate", "compile"),
]
CALL = "import sys; from functrain.cli import main; sys.argv[0] = 'functrain'\ntry: main()\n"
CALL += "finally: print('torch' in sys.modules, file=sys.stderr)"


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CALL, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["train", "--help"], ["config", "--help"], []], ids=str
)
def test_help_and_version_do_not_wait_for_torch(arguments: list[str]) -> None:
    ended = call(*arguments)
    assert ended.stderr.strip() == "False"
    assert ended.stdout.strip()


def test_the_version_names_torch_and_python() -> None:
    python = ".".join(map(str, sys.version_info[:3]))
    assert call("--version").stdout.startswith(f"functrain {functrain.__version__}, torch 2.")
    assert call("--version").stdout.endswith(f", Python {python}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_in_help_are_accepted(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    examples = re.findall(rf"\$ functrain ({command}.*)", shown)
    assert examples
    for example in examples:
        words = shlex.split(example)
        typer.main.get_command(app).make_context("functrain", words)


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_the_terminal(command: str, width: int) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(width)}).output
    assert max(map(len, shown.splitlines())) <= width


class TestCompletion:
    def complete(self, line: str) -> list[str]:
        at = str(len(shlex.split(line)) - 1 + line.endswith(" "))
        asked = {"COMP_WORDS": line, "COMP_CWORD": at, "_FUNCTRAIN_COMPLETE": "complete_bash"}
        ended = call(**asked)
        assert ended.stderr.strip() == "False"
        return ended.stdout.split()

    def test_commands_options_and_their_values(self) -> None:
        assert self.complete("functrain ve") == ["verify"]
        assert self.complete("functrain ls --mod") == ["--mode"]
        assert self.complete("functrain ls --mode m") == ["min", "max"]
        assert self.complete("functrain plot --x ") == ["step", "epoch", "samples", "time"]

    def test_examples_and_yaml_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("dig.yaml", "dig.txt"):
            (tmp_path / name).touch()
        (tmp_path / "digest").mkdir()
        assert sources("dig") == ["digits", "digits_search", "dig.yaml", "digest/"]
        assert sources(str(tmp_path / "dig")) == [str(tmp_path / "dig.yaml"), f"{tmp_path}/digest/"]

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
    def test_the_script_completes_in_bash(self, tmp_path: Path) -> None:
        program = tmp_path / "functrain"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m functrain "$@"\n')
        program.chmod(0o755)
        (tmp_path / "script").write_text(call(_FUNCTRAIN_COMPLETE="source_bash").stdout)
        script = (
            f"PATH={tmp_path}:$PATH; source {tmp_path}/script; COMP_WORDS=(functrain ve); "
            "COMP_CWORD=1; _functrain_completion functrain; echo ${COMPREPLY[*]}"
        )
        ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
        assert ended.stdout.split() == ["verify"], ended.stderr
