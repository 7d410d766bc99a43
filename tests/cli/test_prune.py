"""``functrain prune``: what it says is what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain.checkpoint import Checkpoints

Run = Callable[..., Any]
LOSSES = {10: 0.5, 20: 0.1, 30: 0.4, 40: 0.3}


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    store = Checkpoints(tmp_path / "run")
    for step, loss in LOSSES.items():
        metrics = {"loss": loss, "f1": -step}
        store.save({"w": torch.full((9,), loss)}, step=step, metrics=metrics)
    return store


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--keep-last", "1"], {20: "best loss", 40: "last"}),
        (["--keep-last", "1", "--keep-best", "0"], {40: "last"}),
        (
            ["--keep-last", "2", "--keep-best", "2"],
            {20: "best loss", 30: "last", 40: "last, best loss"},
        ),
        (["--keep-last", "1", "--monitor", "f1", "--mode", "max"], {10: "best f1", 40: "last"}),
        (
            ["--keep-last", "1", "--keep-every-steps", "20"],
            {20: "every 20 steps, best loss", 40: "last, every 20 steps"},
        ),
        (["--keep-last", "3"], {20: "last, best loss", 30: "last", 40: "last"}),
    ],
    ids=str,
)
def test_a_dry_run_prints_removals_and_changes_nothing(
    options: list[str], kept: dict[int, str], functrain: Run, store: Checkpoints
) -> None:
    sizes = {
        step: sum(file.stat().st_size for file in store.path(step).iterdir()) for step in LOSSES
    }
    tried = functrain("prune", store.directory, *options, "--dry-run", "--json").json
    assert store.steps() == [10, 20, 30, 40]
    reasons = {each["step"]: each["reason"] for each in tried["kept"]}
    assert reasons == kept
    assert tried["bytes_freed"] == sum(sizes[step] for step in tried["removed"])
    done = functrain("prune", store.directory, *options, "--json").json
    assert done == {**tried, "dry_run": False}
    assert store.steps() == sorted(reasons)
    assert {*reasons, *done["removed"]} == set(LOSSES)


def test_the_table_has_removals_and_sizes(functrain: Run, store: Checkpoints) -> None:
    ended = functrain("prune", store.directory, "--keep-last", "1", "--dry-run")
    words = [line.split()[:2] for line in ended.out.splitlines()[2:6]]
    assert words == [["10", "goes"], ["20", "stays"], ["30", "goes"], ["40", "stays"]]
    assert "would free" in ended.out
    assert "2 of 4 checkpoints" in ended.out
    assert all(len(line) <= 80 for line in ended.out.splitlines())
    assert "would" not in functrain("prune", store.directory, "--keep-last", "1").out
    assert store.steps() == [20, 40]


def test_a_valid_one_stays_if_the_newest_is_damaged(functrain: Run, store: Checkpoints) -> None:
    payload = store.path(40) / "rest.safetensors"
    payload.write_bytes(payload.read_bytes()[:-1])
    options = ["--keep-last", "1", "--keep-best", "0", "--json"]
    ended = functrain("prune", store.directory, *options)
    assert store.steps() == [30, 40]
    reasons = {each["step"]: each["reason"] for each in ended.json["kept"]}
    assert reasons == {30: "the newest intact one", 40: "last"}


def test_unreadable_checkpoints_are_not_pruned(functrain: Run, store: Checkpoints) -> None:
    (store.path(10) / "manifest.json").write_bytes(b"{}")
    ended = functrain("prune", store.directory, "--keep-last", "1", "--json")
    reasons = {each["step"]: each["reason"] for each in ended.json["kept"]}
    assert reasons[10] == "not readable, so not pruned"
    assert store.steps() == [10, 20, 40]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--keep-last", "0"], "--keep-last"),
        (["run"], "--keep-last"),
        (["run", "--keep-last", "1", "--mode", "most"], "expected min or max"),
        (["run/step-00000010", "--keep-last", "1"], "is a checkpoint"),
        (["nowhere", "--keep-last", "1"], "there is no run"),
    ],
    ids=str,
)
def test_invalid_rules_are_2_and_remove_nothing(
    arguments: list[str], message: str, functrain: Run, store: Checkpoints
) -> None:
    place, *options = arguments
    ended = functrain("prune", store.directory.parent / place, *options)
    assert ended.code == 2
    assert message in ended.err
    assert store.steps() == [10, 20, 30, 40]
    assert not (store.directory.parent / "nowhere").exists()
