"""``functrain train`` on several processes of a real torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import rank_runs
import ranks
from processes import functrain

from functrain.cli import main

OPTIONS = ["program.parts=4", "fit.until=6 steps", "fit.save_every=3 steps", "threads=1"]


def alone(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return functrain("train", "digits", *OPTIONS, *more, f"directory={directory}")


@pytest.mark.long
@pytest.mark.row(57)
def test_torchrun_ends_in_the_bytes_of_one_process(tmp_path: Path) -> None:
    one = alone(tmp_path / "one")
    assert one.returncode == 0, one.stderr
    run = ["train", "digits", *OPTIONS, "placement.shard=all", f"directory={tmp_path / 'two'}"]
    two = ranks.torchrun(2, "functrain", *run, options=["--max-restarts=1", "-m"])
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("run directory:") == 1
    assert "Warning" not in two.stderr
    assert rank_runs.files(tmp_path / "two") == rank_runs.files(tmp_path / "one")
    longer = alone(tmp_path / "two", "fit.until=8 steps", "fit.schedule_end=keep")
    assert longer.returncode == 0, longer.stderr


@pytest.mark.long
def test_a_signal_that_comes_twice_ends_with_a_checkpoint(tmp_path: Path) -> None:
    # A terminal and torchrun, or scancel and torchrun, both send it.
    run = ["train", "digits", *OPTIONS[:1], *OPTIONS[2:], "fit.until=1000000 steps"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    with subprocess.Popen(
        [*command, "-m", "functrain", *run, f"directory={tmp_path}"],
        env={**os.environ, "PYTHONPATH": str(ranks.ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as torchrun:
        try:
            assert torchrun.stdout is not None
            any("eval:" in line for line in torchrun.stdout)  # the first evaluation, or its end
            children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text()
            os.killpg(torchrun.pid, signal.SIGINT)
            for rank in children.split():
                os.kill(int(rank), signal.SIGINT)
            shown = torchrun.stdout.read()
        finally:
            torchrun.terminate()
    assert "KeyboardInterrupt" not in shown, shown
    assert shown.count("interrupted and saved; continue with: functrain train digits") == 1
    assert rank_runs.checkpoints(tmp_path)


def test_a_rank_alone_refuses_a_configuration_without_parts(tmp_path: Path) -> None:
    rank = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    done = functrain("train", "digits", f"directory={tmp_path / 'run'}", env=rank)
    assert done.returncode != 0
    assert "fit: 2 processes were started" in done.stderr
    assert "program.parts=" in done.stderr


@pytest.mark.long
def test_a_configuration_without_parts_is_refused(tmp_path: Path) -> None:
    options = ["train", "digits", f"directory={tmp_path / 'run'}"]
    done = ranks.torchrun(2, "functrain", *options, options=["-m"])
    assert done.returncode != 0
    assert "program.parts=" in done.stderr
    assert not (tmp_path / "run").exists()
    # Once on the screen, and in torchrun's summary the error instead of a hint how to see it.
    assert done.stderr.count("\nfunctrain: fit: 2 processes were started") <= 1
    assert "traceback : functrain: fit: 2 processes were started" in done.stderr
    assert "To enable traceback see" not in done.stderr
    assert "new message format" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "printed", "recorded"),
    [
        ({}, True, False),
        ({"LOCAL_RANK": "1"}, True, False),  # without torchrun nothing else would show it
        ({"LOCAL_RANK": "1", "TORCHELASTIC_ERROR_FILE": ""}, True, False),
        ({"LOCAL_RANK": "0", "TORCHELASTIC_ERROR_FILE": "error.json"}, True, True),
        ({"LOCAL_RANK": "1", "TORCHELASTIC_ERROR_FILE": "error.json"}, False, True),
    ],
)
def test_an_error_of_all_ranks_is_printed_by_the_first_of_a_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    printed: bool,
    recorded: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["functrain", "train", "digits", "program.partz=4"])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main replaces it
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert ("program.partz: unknown key" in capsys.readouterr().err) is printed
    assert Path("error.json").exists() is recorded
    if recorded:
        message = json.loads(Path("error.json").read_text())["message"]
        assert message["message"].startswith("functrain: program.partz: unknown key")


def test_an_error_of_one_rank_is_printed_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["functrain", "ls", str(tmp_path / "missing")])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit):
        main()
    assert "missing" in capsys.readouterr().err
