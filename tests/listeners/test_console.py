"""Row 41: lines on the console, in three styles."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from small_runs import fit

from functrain import metrics
from functrain.errors import ConfigurationError
from functrain.listeners import Console

pytestmark = pytest.mark.row(41)


def lines(style: str, every: str = "10 steps", **options: Any) -> list[str]:
    file = io.StringIO()
    fit([Console(style, every=every, file=file)], **options)
    return file.getvalue().splitlines()


def test_minimal_prints_evaluations_and_the_end() -> None:
    found = lines("minimal", eval_every="10 steps")
    assert [line.split(":")[0] for line in found] == [
        "step 10  eval",
        "step 10  eval/ema",
        "step 20  eval",
        "step 20  eval/ema",
        "ended at step 20",
    ]
    assert found[-1] == "ended at step 20: max_steps (reached 20 steps)"


def test_standard_prints_loss_lr_speed_and_time_left_every_n_steps() -> None:
    found = lines("standard", eval_every="20 steps")
    assert found[0] == "training from step 0 of 20"
    number = r"[\d.e+-]+"
    assert re.fullmatch(
        rf"step 10/20  epoch 2  loss {number}  lr 0.01  error {number}  {number} samples/s  "
        r"\d:\d\d:\d\d left",
        found[1],
    )
    assert [line.split()[1] for line in found[1:]] == ["10/20", "20/20", "20", "20", "at"]


def test_verbose_prints_epochs_checkpoints_norm_and_memory(tmp_path: Path) -> None:
    text = "\n".join(lines("verbose", directory=tmp_path / "run"))
    assert "epoch 1 ended  loss" in text
    assert "epoch 3 ended (cut short)" in text
    assert f"step 3  saved {tmp_path / 'run' / 'step-00000003'}" in text
    assert re.search(r"step 10/20 .*grad_norm .*host \d+ MiB", text)


def test_a_resumed_run_prints_where_it_continues(tmp_path: Path) -> None:
    lines("standard", directory=tmp_path / "run", until="4 steps")
    found = lines("standard", directory=tmp_path / "run")
    assert found[0] == f"continuing {tmp_path / 'run' / 'step-00000004'} from step 4 of 20"


def test_only_printed_metrics_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, asked = metrics.fetch, []
    monkeypatch.setattr(metrics, "fetch", lambda rows: (asked.append(rows), fetch(rows))[1])
    console = Console(every="10 steps", file=io.StringIO())
    calls = []
    send = console.on_batch_end

    class Watched:
        on_train_begin = staticmethod(console.on_train_begin)

        def on_batch_end(self, event: Any) -> None:
            before = len(asked)
            send(event)
            calls.append(len(asked) - before)

    fit([Watched()])
    assert calls == [0] * 9 + [1] + [0] * 9 + [1]


def test_an_unknown_style_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="'minimal', 'standard' or 'verbose'"):
        Console("loud")
