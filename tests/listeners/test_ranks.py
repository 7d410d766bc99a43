"""Listeners that look at a placed state run on every rank, and write what one process writes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rank_runs
import ranks
from sharded_runs import batches

import functrain as ft
from functrain.listeners import Digests, Every, GradientMonitor, SampleText, UpdateMonitor


def loss_of(program: ft.Program, state: ft.TrainState) -> str:
    return str(program.eval_step(state, batches("MLP", [8])[0])["loss"].item())


def watched(directory: Path, shard: Any) -> dict[str, Any]:
    program = rank_runs.program(shard, model="MLP")
    seen: list[str] = []
    listeners = [
        GradientMonitor(program, "2 steps"),
        UpdateMonitor(program, "2 steps"),
        Digests(directory),
        SampleText(program, loss_of, "2 steps", directory / "texts.jsonl"),
        Every("3 steps", lambda state: seen.append(loss_of(program, state)), every_rank=True),
    ]
    data = batches("MLP", [16, 20, 16])
    run = ft.fit(program, data, until="5 steps", listeners=listeners, directory=directory)
    return {**rank_runs.facts(run, program), "seen": seen}


def written(directory: Path) -> dict[str, str]:
    files = [directory / name for name in ("digests.jsonl", "texts.jsonl", "metrics.jsonl")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_listeners_see_the_same_on_any_number_of_ranks(tmp_path: Path) -> None:
    alone = watched(tmp_path / "alone", "none")
    assert len(alone["seen"]) == 1
    assert "grad_norm.first" in alone["rows"][1]
    assert "update_ratio.first" in alone["rows"][1]
    found = ranks.run(watched, 2, tmp_path / "two", "all")
    assert written(tmp_path / "two") == written(tmp_path / "alone")
    assert found == [alone] * 2
