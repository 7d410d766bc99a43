"""Commands that read a run directory run nothing that lies in it."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import functrain
from torch import Tensor, nn

import functrain as ft
from functrain.errors import CheckpointSkippedWarning

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def program() -> ft.Program:
    return ft.program(lambda: nn.Linear(3, 1), loss, ft.optim.SGD(lr=0.1))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


class Payload:
    """An object that writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.fixture
def hostile(tmp_path: Path, rewrite: Callable[..., None]) -> Path:
    """A run with code planted wherever something might import, build or unpickle it."""
    run, marker = tmp_path / "run", tmp_path / "executed"
    ft.fit(program(), [torch.ones(2, 3)] * 2, until="4 steps", directory=run)
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\ndef made(**k): return None\n"
    names = ["planted", "sitecustomize", "usercustomize", "conftest", "functrain", "torch"]
    config = (
        "import_from: [.]\n_target_: planted.made\n"
        "program: {_target_: planted.made}\ndata: {_target_: planted.made}\n"
    )
    pickled = pickle.dumps(Payload(marker))
    checkpoints = [path.parent for path in run.rglob("manifest.json")]
    assert len(checkpoints) >= 2
    for place in (run, run / "compiled", *checkpoints):
        place.mkdir(exist_ok=True)
        for name in names:
            (place / f"{name}.py").write_text(code)
        for name in ("config", "run", "train"):
            (place / f"{name}.yaml").write_text(config)
        for name in ("0.pt2", "state.pt", "model.pt", "payload.pkl", "program.pickle"):
            (place / name).write_bytes(pickled)
    for payload in checkpoints[0].glob("*.safetensors"):
        payload.write_bytes(pickled)
    rewrite(checkpoints[0], lambda fields: fields.update(info={"recipe": {"loss": "planted.made"}}))
    return run


def command(run: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    return functrain(*arguments, cwd=elsewhere)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "{run}"),
        ("show", "{run}"),
        ("verify", "{run}"),
        ("plot", "{run}"),
        ("report", "{run}"),
        ("diff", "{run}", "{run}"),
        ("export", "{run}", "out.safetensors"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_nothing_in_a_run_directory_is_run(hostile: Path, arguments: tuple[str, ...]) -> None:
    done = command(hostile, *(each.format(run=hostile) for each in arguments))
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()
    assert not (hostile.parent / "executed").exists()


def test_neither_does_a_run_that_goes_on_there(hostile: Path) -> None:
    with pytest.warns(CheckpointSkippedWarning, match="were saved"):
        ft.fit(program(), [torch.ones(2, 3)] * 2, until="6 steps", directory=hostile)
    assert not (hostile.parent / "executed").exists()


def test_the_payload_would_be_seen(hostile: Path) -> None:
    pickle.loads((hostile / "payload.pkl").read_bytes())
    assert (hostile.parent / "executed").exists()
