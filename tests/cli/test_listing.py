"""``functrain ls`` and ``functrain verify``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain.checkpoint import Checkpoints, save

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = Checkpoints(tmp_path / "run")
    for step, loss in ((5, 0.3), (10, 0.1), (20, 0.2), (100, float("nan"))):
        metrics = {"loss": loss, "accuracy": step / 100}
        store.save({"params": {"w": torch.full((3,), loss)}}, step=step, metrics=metrics)
    return tmp_path / "run"


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


class TestLs:
    def test_lists_steps_in_numeric_order_with_the_best_marked(
        self, functrain: Run, run: Path
    ) -> None:
        ended = functrain("ls", run)
        lines = ended.out.splitlines()[2:]
        assert ended.code == 0
        assert [line.split()[0] for line in lines] == ["5", "10", "20", "100"]
        assert ["best" in line for line in lines] == [False, True, False, False]
        assert all(len(line) <= 80 for line in ended.out.splitlines())
        assert "loss=0.1 accuracy=0.1" in lines[1]

    def test_json_has_sizes_times_and_metrics(self, functrain: Run, run: Path) -> None:
        ended = functrain("ls", run, "--json")
        found = ended.json["checkpoints"]
        first = run / "step-00000005"
        assert [each["step"] for each in found] == [5, 10, 20, 100]
        assert found[0]["bytes"] == sum(os.path.getsize(file) for file in first.iterdir())
        assert found[0]["path"] == str(first)
        assert found[3]["metrics"] == {"loss": "nan", "accuracy": 1.0}
        assert [each["best"] for each in found] == [False, True, False, False]
        assert all(each["leaves"] == 1 and each["saved_at"] > 1e9 for each in found)
        assert ended.err == ""

    def test_another_metric_or_the_configuration_says_what_is_best(
        self, functrain: Run, run: Path
    ) -> None:
        def best(*options: str) -> list[int]:
            found = functrain("ls", run, "--json", *options).json["checkpoints"]
            return [each["step"] for each in found if each["best"]]

        assert best("--monitor", "accuracy", "--mode", "max") == [100]
        (run / "config.yaml").write_text("checkpoints: {monitor: accuracy, mode: max}\n")
        assert best() == [100]
        assert best("--monitor", "loss", "--mode", "min") == [10]
        assert best("--monitor", "loss") == [10]  # the mode is that of the accuracy
        (run / "config.yaml").write_text("checkpoints: {monitor: accuracy}\n")
        assert best() == [100]
        assert best("--mode", "min") == [5]
        (run / "config.yaml").write_text("checkpoints: [\n")
        assert best() == [10]
        assert best("--monitor", "accuracy") == [100]

    def test_a_metric_of_unknown_direction(self, functrain: Run, tmp_path: Path) -> None:
        run = tmp_path / "run"
        store = Checkpoints(run, monitor="score", mode="max")
        for step, score in ((1, 0.5), (2, 0.7), (3, 0.6)):
            store.save({"w": torch.ones(1)}, step=step, metrics={"score": score})
        (run / "config.yaml").write_text("checkpoints: {monitor: score}\n")
        found = functrain("ls", run, "--json").json
        assert ([each["best"] for each in found["checkpoints"]], found["mode"]) == (
            [False] * 3,
            None,
        )
        for command in (
            ("ls", run, "--monitor", "score"),
            ("ls", "--tree", run, "--monitor", "score"),
            ("show", run, "--best"),
            ("show", f"{run}@best"),
            ("prune", run, "--keep-last", 1, "--monitor", "score"),
        ):
            assert functrain(*command).refuses("'score' is no well-known name")
        assert functrain("ls", "--tree", run).code == 0
        assert len(store.steps()) == 3
        shown = functrain("show", run, "--best", "--mode", "max", "--json")
        assert shown.json["step"] == 2

    def test_the_monitor_of_a_run_is_in_its_checkpoints(
        self, functrain: Run, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        store = Checkpoints(run, monitor="score", mode="max")
        info = {"monitored": {"monitor": "score", "mode": "max"}}
        for step, score in ((1, 0.5), (2, 0.7), (3, 0.6)):
            store.save({"w": torch.ones(1)}, step=step, metrics={"score": score}, info=info)
        found = functrain("ls", run, "--json").json
        assert (found["monitor"], found["mode"]) == ("score", "max")
        assert [each["step"] for each in found["checkpoints"] if each["best"]] == [2]
        assert functrain("show", f"{run}@best", "--json").json["step"] == 2
        assert functrain("show", run, "--best", "--mode", "min", "--json").json["step"] == 1

    def test_unreadable_checkpoints_are_listed_with_the_reason(
        self, functrain: Run, run: Path, rewrite: Any
    ) -> None:
        flip(run / "step-00000005" / "manifest.json", at=20)
        (run / "step-00000010" / "manifest.json").unlink()
        rewrite(run / "step-00000020", lambda fields: fields.update(format="2.0"))
        (run / "step-00000007").mkdir()
        found = functrain("ls", run, "--json")
        problems = {each["step"]: each["problem"] for each in found.json["checkpoints"]}
        assert found.code == 0
        assert "digest" in problems[5]
        assert problems[10] == problems[7] == "has no manifest.json"
        assert "install a newer functrain" in problems[20]
        assert problems[100] is None
        assert "not readable: has no manifest.json" in functrain("ls", run, width=200).out

    def test_one_checkpoint(self, functrain: Run, run: Path) -> None:
        found = functrain("ls", run / "step-00000010", "--json").json["checkpoints"]
        assert [(each["step"], each["best"]) for each in found] == [(10, False)]

    def test_control_characters_are_not_printed(self, functrain: Run, tmp_path: Path) -> None:
        place = save(tmp_path / "x", {"w\x1b[2J[red]": 1}, metrics={"\x1b]0;title\x07": 1.0})
        for command in ("ls", "show"):
            out = functrain(command, place).out
            assert "\x1b" not in out
            assert "\x07" not in out
        assert "w\\x1b[2J[red]" in functrain("show", place).out


class TestVerify:
    def test_a_valid_run_is_0(self, functrain: Run, run: Path) -> None:
        ended = functrain("verify", run, "--json")
        assert ended.code == 0
        assert ended.json["ok"] is True
        assert len(ended.json["checkpoints"]) == 4
        assert all(each["seconds"] > 0 for each in ended.json["checkpoints"])

    def test_damage_is_1_with_file_and_leaf(self, functrain: Run, run: Path) -> None:
        flip(run / "step-00000010" / "params.safetensors")
        ended = functrain("verify", run)
        assert ended.code == 1
        assert "damaged" in ended.out
        assert "params.safetensors: the bytes of params.w" in ended.out
        words = [line.split()[0] for line in ended.out.splitlines() if " B " in line]
        assert words == ["OK", "damaged", "OK", "OK"]
        assert functrain("verify", run / "step-00000005").code == 0
        assert functrain("verify", run / "step-00000005", run / "step-00000010").code == 1

    def test_a_checkpoint_under_the_name_of_another_step_is_damage(
        self, functrain: Run, run: Path
    ) -> None:
        (run / "step-00000005").rename(run / "step-00000006")
        ended = functrain("verify", run)
        assert ended.code == 1
        assert "holds the checkpoint of step 5" in ended.out

    def test_a_missing_path_is_2_before_anything_is_read(
        self, functrain: Run, run: Path, tmp_path: Path
    ) -> None:
        assert functrain("verify", run, tmp_path / "nowhere").refuses("nowhere")


@pytest.mark.parametrize("command", ["ls", "show", "verify"])
def test_a_directory_of_a_newer_minor_version_is_read(
    command: str, functrain: Run, run: Path, rewrite: Any
) -> None:
    def newer(fields: dict[str, Any]) -> None:
        fields["format"] = "1.9"
        fields["novelty"] = {"a": 1}
        fields["structure"]["later"] = {"$later": [1, 2], "more": "x"}
        for record in (*fields["leaves"], *fields["files"]):
            record["novelty"] = [1]

    for checkpoint in run.glob("step-*"):
        rewrite(checkpoint, newer)
    (run / "FORMAT").write_text("functrain run directory, format 1.9\n")
    ended = functrain(command, run, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert functrain("diff", run, run).code == 0
