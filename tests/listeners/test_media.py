"""Destinations get the configuration of a run, and images, figures and texts by its metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CutAt, drawn, fit, program, with_media

import functrain as ft
from functrain.errors import ConfigurationError, ListenerError, UnsupportedError
from functrain.listeners import CSV, Media, Sink
from functrain.listeners.sinks import sink as sink_module
from functrain.listeners.sinks.media import as_medium


class Recorded:
    """A destination that keeps what it is given, and may fail."""

    def __init__(self, failures: int = 0) -> None:
        self.config: Any = None
        self.given: list[Any] = []
        self.failures = failures

    def configure(self, config: Any) -> None:
        self.config = config

    def open(self, after: int, run: str | None) -> None:
        self.given = [each for each in self.given if each[0] <= after]

    def write(self, rows: list[Any]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        self.given += [(row["step"], "row") for row in rows]

    def write_media(self, medium: Any) -> None:
        self.given.append((medium.step, medium.name))

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_a_destination_is_configured_with_recipe_data_and_limits() -> None:
    place = Recorded()
    fit([Sink(place, "recorded")], until="3 steps")
    assert place.config["clip_norm"] == 1.0
    assert place.config["optimizer"]["type"] == "Adam"
    assert place.config["fit"]["until"] == "3 steps"
    assert place.config["fit"]["seed"] == 0
    assert place.config["trained_parameters"] > 0
    assert set(place.config["data"]) == {"batches_in_an_epoch", "batch_size", "seed", "order"}
    json.dumps(place.config)  # plain data


@pytest.mark.parametrize("failures", [0, 2])
@pytest.mark.filterwarnings("ignore::functrain.errors.SinkWarning")
def test_media_come_after_the_row_of_their_step_and_before_the_next(
    failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "_MOST_ROWS", 1)
    place = Recorded(failures)
    with_media(Sink(place, "recorded"), until="12 steps")
    rows = [(step, "row") for step in range(1, 13)]
    media = [(step, name) for step in range(2, 13, 2) for name in ("gray", "text")]
    assert place.failures == 0
    assert sorted(place.given, key=lambda each: each[0]) == place.given
    assert sorted(place.given) == sorted(rows + media)
    assert place.given.index((2, "row")) < place.given.index((2, "gray"))


def test_a_resumed_run_logs_each_medium_once(tmp_path: Path) -> None:
    place = Recorded()

    def listeners() -> list[Any]:
        sink = Sink(place, "recorded")
        return [sink, Media(program(), drawn, to=sink, every="2 steps")]

    fit([*listeners(), CutAt(4)], directory=tmp_path)
    fit(listeners(), directory=tmp_path, until="8 steps")
    steps = [step for step, name in place.given if name == "gray"]
    assert steps == [2, 4, 6, 8]


def test_media_do_not_change_training() -> None:
    watched = with_media(Sink(Recorded(), "recorded"))
    assert ft.tree.diff(watched.state, fit(until="4 steps").state) == []


def test_a_sink_that_is_no_listener_and_one_for_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"CSV.*takes numbers only"):
        Media(program(), drawn, to=CSV(tmp_path / "a.csv"))
    media = Media(program(), drawn, to=Sink(Recorded(), "recorded"), every="2 steps")
    with pytest.raises(ListenerError, match="list it before Media") as raised:
        fit([media])
    assert isinstance(raised.value.__cause__, ConfigurationError)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (torch.zeros(4, 5), [4, 5, 1]),
        (torch.zeros(3, 4, 5), [4, 5, 3]),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), [4, 5, 3]),
        (np.zeros((4, 5), dtype=bool), [4, 5, 1]),
    ],
)
def test_images_have_one_form(value: Any, shape: list[int]) -> None:
    found = as_medium(1, "image", value).value
    assert isinstance(found, torch.Tensor)
    assert (list(found.shape), found.dtype) == (shape, torch.uint8)


def test_the_values_of_an_image_stay() -> None:
    floats = torch.tensor([[0.0, 0.5, 1.0]])
    found = as_medium(1, "image", floats).value
    assert isinstance(found, torch.Tensor)
    assert found.flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.randn(9, 4, 5, 6), "expected an image of shape"),
        (torch.full((4, 5), 2.0), "expected floats from 0 to 1, got 2 to 2"),
        (torch.full((4, 5), torch.nan), "expected floats from 0 to 1, got nan"),
        (torch.zeros(4, 5, dtype=torch.int64), "expected uint8"),
        (object(), "expected a string, an image or a figure"),
    ],
)
def test_other_values_are_refused_with_a_remedy(value: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'image': {message}"):
        as_medium(1, "image", value)


def test_a_figure_is_an_image() -> None:
    figures = pytest.importorskip("matplotlib.figure")
    backend = pytest.importorskip("matplotlib.backends.backend_agg")
    figure = figures.Figure(figsize=(2, 1), dpi=50)
    backend.FigureCanvasAgg(figure)
    figure.patch.set_facecolor("red")
    found = as_medium(1, "figure", figure).value
    assert list(found.shape) == [50, 100, 4]
    assert found[0, 0].tolist() == [255, 0, 0, 255]
