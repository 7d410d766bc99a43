"""A history in a terminal, in a notebook, as a data frame, and its numbers."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from pages import Page, in_notebook
from small_runs import fit

import functrain as ft
from functrain.errors import ConfigurationError, LogError
from functrain.metrics.log_file import encode


def rows(count: int) -> list[dict[str, Any]]:
    draw = random.Random(count)
    made = [
        {"step": s, "epoch": s // 5, "loss": draw.random(), "lr": 1e-3, "grad_norm": draw.random()}
        for s in range(1, count + 1)
    ]
    for row in made[4::5]:
        row |= {"epoch/loss": draw.random(), "eval/loss": draw.random(), "eval/ema/loss": 0.1}
    return made


def test_a_short_history_is_shown_whole() -> None:
    assert repr(ft.History(rows(2)[:1])).splitlines()[1:] == [
        "           |              training",
        "step epoch |  loss    lr grad_norm",
        "   1     0 | 0.956 0.001    0.9478",
    ]
    assert repr(ft.History([])) == "History: no steps"


def test_a_long_history_shows_head_and_tail_and_names_the_columns_left_out() -> None:
    shown = repr(ft.History(rows(1_000))).splitlines()
    assert shown[0] == "History: 1,000 steps, 6 metrics"
    steps = [line.split()[0] for line in shown[3:-1]]
    assert steps == ["1", "2", "3", "...", "997", "998", "999", "1000"]
    assert shown[-1] == "and epoch/loss"


@pytest.mark.parametrize("count", [1, 30])
def test_no_line_is_longer_than_100_characters(count: int) -> None:
    many = {f"validation/some_metric_{at}": math.pi for at in range(30)}
    shown = repr(ft.History([{**row, **many} for row in rows(count)]))
    *lines, rest = shown.splitlines()
    assert max(map(len, lines)) <= 100
    assert "some_metric_29" in rest


def test_a_notebook_shows_the_table_with_all_columns_and_escapes_names() -> None:
    many = {f"metric_{number}": 1.0 for number in range(30)}
    page = Page(in_notebook(ft.History([{**row, "<script>": 1.0, **many} for row in rows(3)])))
    assert page.tags == ["pre"]
    assert {"step", "loss", "training", "<script>", "3", *many} <= set(page.text.split())


def test_a_history_is_read_exactly_from_a_run_directory(tmp_path: Path) -> None:
    written = [*rows(7), {"step": 8, "loss": math.inf}]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(map(encode, written)) + b'{"step":9,"l')
    for path in (tmp_path, str(tmp_path), tmp_path / "metrics.jsonl"):
        assert ft.History.read(path).rows == written


@pytest.mark.parametrize("line", [b"{", b"5", b"[1]", b"\xff"])
def test_an_error_names_the_damaged_line(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step":1}\n' + line + b'\n{"step":3}\n')
    with pytest.raises(LogError, match=r"metrics.jsonl is damaged in line 2"):
        ft.History.read(tmp_path)


def test_a_run_without_a_log_raises(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"metrics.jsonl cannot be read: No such file"):
        ft.History.read(tmp_path)


def test_a_slice_is_a_history_and_an_item_is_a_row() -> None:
    history = ft.History(rows(10))
    assert history[2:5].rows == history.rows[2:5]
    assert history[-1] == history.rows[-1]
    assert history["loss"] == [row["loss"] for row in history.rows]


def test_best_never_returns_a_value_that_is_not_finite() -> None:
    values = [3.0, math.nan, 1.0, math.inf, 1.0, -math.inf, 2.0]
    history = ft.History([{"step": s, "loss": v} for s, v in enumerate(values, 1)])
    assert history.last("loss") == 2.0
    assert history.best("loss") == (3, 1.0)
    assert history.best("loss", "max") == (1, 3.0)
    with pytest.raises(KeyError, match="it has"):
        history.last("accuracy")
    with pytest.raises(ConfigurationError, match="'min' or 'max'"):
        history.best("loss", "least")  # type: ignore[arg-type]
    with pytest.raises(LogError, match="never finite"):
        history[1:2].best("loss")


def test_a_data_frame_has_the_same_floats_and_nan_for_missing_values() -> None:
    pandas = pytest.importorskip("pandas")
    history = ft.History(rows(11))
    frame = history.to_pandas()
    assert frame.index.name == "step"
    assert frame["epoch"].dtype == "int64"
    for name in history.names()[1:]:
        steps, values = history.column(name)
        assert frame[name].dropna().index.tolist() == steps
        assert frame[name].dropna().tolist() == values
    assert frame["eval/loss"].isna().sum() == 9
    assert isinstance(ft.History([]).to_pandas(), pandas.DataFrame)


def test_plot_draws_and_saves_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figure = ft.History(rows(20)).plot("*loss", path=tmp_path / "a.png", x="epoch", log=False)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss"]
    assert figure.axes[0].get_xlabel() == "epoch"
    assert (tmp_path / "a.png").exists()


def test_whole_numbers_are_logged_as_they_are(tmp_path: Path) -> None:
    count = 2**53 + 1

    class Counting:
        def on_batch_end(self, event: Any) -> dict[str, int]:
            return {"tokens": count, "more": -count, "most": 2**70}

    csv = tmp_path / "m.csv"
    run = fit([Counting(), ft.listeners.CSV(csv)], directory=tmp_path / "run", until="3 steps")
    assert run.history["tokens"] == [count] * 3
    assert run.history["more"] == [-count] * 3
    assert run.history["most"] == [float(2**70)] * 3
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert log.count(f":{count},") == 3
    assert csv.read_text().count(f",{count},") == 3
    assert str(count) in str(run.history)
