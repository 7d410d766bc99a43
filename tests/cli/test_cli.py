"""The command line as a user meets it: real processes, exit codes, what is printed and written."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from processes import functrain

SHORT = [
    "fit.until=8 steps",
    "fit.eval_every=4 steps",
    "threads=1",
    "schedule.warmup_proportion=0.5",
]


def train(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return functrain("train", "digits", f"directory={directory}", *SHORT, *options)


@pytest.mark.slow
class TestTrain:
    def test_train_writes_resumes_and_completes(self, tmp_path: Path) -> None:
        directory, often = tmp_path / "run", ["fit.save_every=4 steps"]
        first = train(directory, *often)
        assert first.returncode == 0, first.stderr
        assert "max_steps" in first.stdout
        assert str(directory / "curves.png") in first.stdout
        assert {"config.yaml", "metrics.jsonl", "curves.png", "FORMAT"} <= {
            path.name for path in directory.iterdir()
        }
        again = train(directory, *often)
        assert again.returncode == 0
        assert "nothing to train: the run in" in again.stdout
        assert "continuing" not in again.stdout
        # Going back is no less work, even where the end is the same.
        back = train(directory, *often, "fit.resume=4")
        assert back.returncode == 0, back.stderr
        assert "nothing to train" not in back.stdout
        assert "made 4 steps, from the checkpoint of step 4 on; those up to 8 a second time" in (
            " ".join(back.stdout.split())
        )
        ended = train(directory, *often, "fit.until=12 steps")
        assert ended.returncode == 2
        assert "WarmupCosine ends at update 8 with a learning rate of exactly 0" in ended.stderr
        assert "fit.schedule_end=stretch" in ended.stderr
        assert "Traceback" not in ended.stderr
        longer = train(directory, *often, "fit.until=12 steps", "fit.schedule_end=stretch")
        assert longer.returncode == 0, longer.stderr
        assert "continuing from step 8" in longer.stdout
        rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, 13))
        assert all(row["lr"] > 0 for row in rows[1:])

    def test_another_configuration_in_the_directory_is_an_error(self, tmp_path: Path) -> None:
        train(tmp_path / "run")
        before = (tmp_path / "run" / "config.yaml").read_bytes()
        other = train(tmp_path / "run", "model.width=16")
        assert other.returncode == 2
        assert "model.width: 32 there, 16 now" in other.stderr
        assert (tmp_path / "run" / "config.yaml").read_bytes() == before

    def test_a_corrected_monitor_resumes(self, tmp_path: Path) -> None:
        wrong = train(tmp_path / "run", "fit.eval_every=4 steps", "early_stop.monitor=eval/los")
        assert wrong.returncode != 0
        assert "did you mean 'eval/loss'?" in wrong.stderr
        right = train(tmp_path / "run", "fit.eval_every=4 steps", "early_stop.monitor=eval/loss")
        assert right.returncode == 0, right.stderr
        assert "continuing from step 4" in right.stdout


# Sends a signal to its own process, once.
SIGNALS = """
import os
from pathlib import Path

class Signals:
    def on_batch_end(self, event):
        number = Path("signal")
        if event.state.counters.step == 11 and number.exists():
            sent = int(number.read_text())
            number.unlink()
            os.kill(os.getpid(), sent)
"""


def interrupted(tmp_path: Path, number: int) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Train until a signal in the eleventh step; also return the command."""
    (tmp_path / "signals.py").write_text(SIGNALS)
    (tmp_path / "signal").write_text(str(number))
    options = ["fit.until=24 steps", "fit.eval_every=8 steps", "threads=1"]
    listener = "listeners=[{_target_: signals.Signals}]"
    command = ["train", "digits", *options, listener]
    return functrain(*command, "directory=run", cwd=tmp_path), command


@pytest.mark.slow
class TestEndings:
    def test_sigterm_saves_and_the_run_goes_on_to_the_same_bytes(self, tmp_path: Path) -> None:
        first, command = interrupted(tmp_path, signal.SIGTERM)
        assert first.returncode == 143
        assert "interrupted and saved" in first.stdout
        for name in ("run", "straight"):
            done = functrain(*command, f"directory={name}", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert functrain("diff", "run", "straight", cwd=tmp_path).returncode == 0

    def test_sigint_is_130_and_prints_the_command_to_resume(self, tmp_path: Path) -> None:
        first, command = interrupted(tmp_path, signal.SIGINT)
        assert first.returncode == 130
        resume = shlex.join(["functrain", *command, "directory=run"])
        assert f"continue with: {resume}" in first.stdout

    def test_a_nonfinite_loss_is_3_and_never_complete(self, tmp_path: Path) -> None:
        options = ["schedule.lr=1e30", "program.clip_norm=null"]
        for _ in range(2):
            ended = train(tmp_path / "run", *options)
            assert ended.returncode == 3
            assert "the loss is nan" in ended.stderr
            assert "Traceback" not in ended.stderr
            assert "nothing to train" not in ended.stdout

    def test_an_error_in_a_listener_keeps_its_traceback(self, tmp_path: Path) -> None:
        text = "class Bad:\n    def on_batch_end(self, event):\n        raise KeyError('mine')\n"
        (tmp_path / "bad_listener.py").write_text(text)
        options = [f"directory={tmp_path / 'run'}", "listeners=[{_target_: bad_listener.Bad}]"]
        ended = functrain("train", "digits", *SHORT, *options, cwd=tmp_path)
        assert ended.returncode == 1
        assert "bad_listener.py" in ended.stderr
        assert "Bad.on_batch_end failed at step 1" in ended.stderr

    def test_a_damaged_configuration_in_the_run_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "run" / "config.yaml"
        assert train(tmp_path / "run").returncode == 0
        for text in ("", "model: {"):
            path.write_text(text)
            refused = train(tmp_path / "run")
            assert refused.returncode == 2
            assert f"{path} is damaged" in refused.stderr
        path.unlink()
        assert train(tmp_path / "run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plot", "nowhere"], "nowhere/metrics.jsonl has no steps"),
        (["generate", "nowhere", "The"], "there is no run with checkpoints in nowhere"),
        (["train", "digts"], "did you mean 'digits'?"),
        (["train", "digits", "sede=1"], "sede: unknown key (did you mean 'seed'?)"),
        (["config", "check", "digits", "fit.untill=1"], "fit.untill: unknown key (did you mean"),
        (["diff", "nowhere", "nowhere"], "there is no run with checkpoints in nowhere"),
        (["ls", "nowhere"], "there is no run"),
        (["show", "nowhere@3"], "there is no run with checkpoints in nowhere"),
        (["verify", "nowhere"], "there is no run with checkpoints in nowhere"),
        (["export", "nowhere", "w.safetensors"], "there is no run with checkpoints in nowhere"),
        (["prune", "nowhere", "--keep-last", "1"], "there is no run with checkpoints in nowhere"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = functrain(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    done = train(tmp_path / "run")
    assert done.returncode == 2
    assert str(tmp_path / "run") in done.stderr
    assert (tmp_path / "run").read_text() == "precious"
