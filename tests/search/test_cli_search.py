"""``functrain search`` in real processes: killed, interrupted, concurrent, and then read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import Child

import functrain as ft
from functrain.cli import main

pytest.importorskip("optuna")
# The data can only be read from its beginning, of which a run that goes on within an epoch warns.
pytestmark = [
    pytest.mark.row(47),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::functrain.errors.ReplayWarning"),
]

SOURCE = """
import os, pathlib, time
import torch
import functrain as ft

X = torch.linspace(-1, 1, 16).reshape(-1, 1)

def model(width):
    return torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Linear(width, 1))

def loss(model, batch):
    if len(model[0].weight) == 7:
        raise ValueError("seven is no width")
    return (model(batch[0]) - batch[1]).square().mean()

def data(batch_size=8, wait=0.0):
    return Slow(ft.data.Batches((X, 3 * X), batch_size), wait)

class Slow:
    runs = 0  # of training, in this process
    def __init__(self, batches, wait):
        self.batches, self.wait, self.read = batches, wait, 0
    def __len__(self):
        return len(self.batches)
    def __iter__(self):
        Slow.runs += self.read == 0 and len(self) == 2
        for batch in self.batches:
            self.read += 1
            sent = pathlib.Path("signal")
            if (Slow.runs, self.read) == (2, 6) and sent.exists():
                number = int(sent.read_text())
                sent.unlink()
                os.kill(os.getpid(), number)
            time.sleep(self.wait)
            yield batch
"""
BASE = """
model: {_target_: mine.model, width: 4}
loss: mine.loss
data: {_target_: mine.data, wait: 0.1}
eval_data: {_target_: mine.data, batch_size: 16}
optimizer: {_target_: functrain.optim.SGD, lr: 0.1}
fit: {until: 3 epochs}
threads: 1
"""
SEARCH = """
base: base.yaml
metric: eval/loss
space:
  optimizer.lr: {type: float, min: 1e-3, max: 0.3, log: true}
  model.width: [2, 3, 4]
seeds: [0, 1]
trials: 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("mine.py", SOURCE), ("base.yaml", BASE), ("search.yaml", SEARCH)):
        (tmp_path / name).write_text(text)
    return tmp_path


def started(folder: Path, *arguments: str) -> Child:
    command = ["-m", "functrain", "search", "search.yaml", *arguments]
    return Child(*command, cwd=folder, env={**os.environ, "COLUMNS": "200"})


def ended(process: Child) -> tuple[int | None, str, str]:
    out, err = process.communicate()
    return process.returncode, out, err


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run the same command in this process, which is faster."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["functrain", "search", "search.yaml", *arguments])
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets one
        with pytest.raises(SystemExit) as ended:
            main()
        sys.modules.pop("mine", None)  # a different module in the folder of each test
        code = ended.value.code
        return (code if isinstance(code, int) else 0), *capsys.readouterr()

    return run


def values(folder: Path, name: str) -> dict[str, Any]:
    """Return the parameters and the values of the seeds of each trial."""
    found = {}
    for path in sorted((folder / "runs" / name).glob("trial-*/trial.json")):
        trial = json.loads(path.read_text())
        seeds = {seed: ended["value"] for seed, ended in trial["seeds"].items()}
        found[path.parent.name] = (trial["params"], seeds)
    return found


def interrupted(folder: Path, number: int, *arguments: str) -> tuple[int | None, str, str]:
    """Search until a signal in the last epoch of the second run of the process."""
    (folder / "signal").write_text(str(int(number)))
    return ended(started(folder, *arguments))


def test_a_killed_search_resumes(folder: Path, here: Here) -> None:
    (folder / "base.yaml").write_text(BASE.replace("wait: 0.1", "wait: 0"))
    code, out, err = here("name=whole")
    assert code == 0, err
    assert "trials: 3 complete" in out

    code, _, err = interrupted(folder, signal.SIGKILL, "name=parts")
    assert code == -signal.SIGKILL, err
    first = folder / "runs/parts/trial-0000/trial.json"
    assert list(json.loads(first.read_text())["seeds"]) == ["0"]

    code, out, err = interrupted(folder, signal.SIGINT, "name=parts")
    assert code == 130, err
    assert "trial 0: was interrupted, resuming" in out
    assert "continue with: functrain search search.yaml name=parts" in out
    assert "trials: 1 complete, 1 unfinished" in out
    written = first.stat().st_mtime_ns

    code, out, err = here("name=parts")
    assert code == 0, err
    assert "trial 1: was interrupted, resuming" in out
    assert "trials: 3 complete" in out
    assert first.stat().st_mtime_ns == written
    assert values(folder, "parts") == values(folder, "whole")  # to the last bit

    code, out, err = here("name=parts", "--report")
    assert code == 0, err
    assert "train the best with: functrain train base.yaml optimizer.lr=0." in out
    assert (folder / "runs/parts/history.png").exists()


def test_two_processes_share_a_search(folder: Path) -> None:
    both = [started(folder, "trials=3") for _ in range(2)]
    outs = []
    for process in both:
        code, out, err = ended(process)
        assert code == 0, err
        outs.append(out)
    assert any("trials: 3 complete" in out for out in outs)
    assert all("failed" not in out for out in outs)
    found = values(folder, "search")
    assert len(found) == 3
    assert all(len(seeds) == 2 for _, seeds in found.values())
    for trial in found:
        rows = (folder / f"runs/search/{trial}/seed-0/metrics.jsonl").read_text().splitlines()
        assert [json.loads(row)["step"] for row in rows] == list(range(1, 7))


def test_a_mistake_in_the_code_fails_its_trials_and_ends_the_search(here: Here) -> None:
    code, out, err = here("space.model.width=[7]", "max_failures=2")
    assert code == 1, err
    assert "trial 0: failed (seed 0: ValueError: seven is no width (mine.py, line 13)); see" in out
    assert "trials: 2 failed" in out
    assert "failures: 2 trials failed with an exception" in out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("space.model.widht=[7]", "widht"),
        ("space.modle.width=[7]", "modle"),
        ("trials=0", "trials"),
        ("sampler.name=TPESmapler", "did you mean 'TPESampler'"),
        ("--report", "is not a search"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(
    folder: Path, here: Here, argument: str, message: str
) -> None:
    code, _, err = here(argument)
    assert (code, message in err, len(err.splitlines())) == (2, True, 1), err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize("given", ["seed: 5", "seeds: [5]"])
def test_the_seeds_of_the_base_are_those_of_the_trials(
    folder: Path, here: Here, given: str
) -> None:
    (folder / "base.yaml").write_text(f"{BASE}{given}\n")
    code, out, err = here("~seeds", "trials=1", "name=one")
    assert code == 0, err
    command = next(line for line in out.splitlines() if line.startswith("train the best with: "))
    assert "seed=5" in command
    again = [*shlex.split(command)[5:], "directory=again"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["functrain", *again])
        with contextlib.suppress(SystemExit):
            main()
    trial = folder / "runs/one/trial-0000/seed-5"
    rows = [ft.History.read(each).rows for each in (trial, folder / "again")]
    assert rows[0] == rows[1]


def test_a_space_has_no_key_that_the_search_sets(here: Here) -> None:
    code, _, err = here("+space.seed=[1, 2]")
    assert code == 2
    assert "space.seed: the search sets it" in err


def test_trials_of_data_with_other_contents_are_not_mixed(folder: Path, here: Here) -> None:
    slow = "Slow(ft.data.Batches((X, 3 * X), batch_size), wait)"
    for scale in (3, 30):
        plain = f"ft.data.Batches((X, {scale} * X), batch_size)"
        (folder / "mine.py").write_text(SOURCE.replace(slow, plain))
        code, _, err = here("name=mixed", "trials=1", "seeds=[0]")
    assert code == 2
    assert "data.contents" in err
