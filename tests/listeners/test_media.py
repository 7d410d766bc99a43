"""Trackers get the configuration of a run, and images, figures and texts beside its metrics."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CutAt, fit, program

import functrain as ft
from functrain.errors import ConfigurationError, ListenerError, SinkWarning, UnsupportedError
from functrain.listeners import CSV, Media, MLflow, Sink, TensorBoard, Trackio, WandB
from functrain.listeners.sinks import sink as sink_module
from functrain.listeners.sinks.media import as_medium

PROGRAM = program()


def drawn(_: ft.Program, state: ft.TrainState) -> dict[str, Any]:
    """Return an image and a text that follow from the state, and from drawn numbers."""
    gray = torch.rand(2, 3)
    return {"gray": gray, "text": f"<b>step {state.counters.step}</b>"}


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
    sink = Sink(place, "recorded")
    fit([sink, Media(PROGRAM, drawn, to=sink, every="2 steps")], until="12 steps")
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
        return [sink, Media(PROGRAM, drawn, to=sink, every="2 steps")]

    fit([*listeners(), CutAt(4)], directory=tmp_path)
    fit(listeners(), directory=tmp_path, until="8 steps")
    steps = [step for step, name in place.given if name == "gray"]
    assert steps == [2, 4, 6, 8]


def test_media_do_not_change_training() -> None:
    sink = Sink(Recorded(), "recorded")
    watched = fit([sink, Media(PROGRAM, drawn, to=sink, every="2 steps")])
    assert ft.tree.diff(watched.state, fit([]).state) == []


def test_a_sink_that_is_no_listener_and_one_for_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"CSV.*takes numbers only"):
        Media(PROGRAM, drawn, to=CSV(tmp_path / "a.csv"))
    media = Media(PROGRAM, drawn, to=Sink(Recorded(), "recorded"), every="2 steps")
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


# -- trackers, read back with their own tools ----------------------------------------------------


def with_media(sink: Sink, **options: Any) -> ft.Run:
    return fit([sink, Media(PROGRAM, drawn, to=sink, every="2 steps")], until="4 steps", **options)


def test_tensorboard_has_hyperparameters_images_and_texts(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    images = pytest.importorskip("PIL.Image")
    with_media(TensorBoard(tmp_path, config={"note": "first"}))
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [each.step for each in found.Images("gray")] == [2, 4]
    assert images.open(io.BytesIO(found.Images("gray")[0].encoded_image_string)).size == (3, 2)
    texts = found.Tensors("text/text_summary")
    assert "<b>step 2</b>" in texts[0].tensor_proto.string_val[0].decode()
    tags = found.summary_metadata
    start = plugin.HParamsPluginData.FromString(
        tags["_hparams_/session_start_info"].plugin_data.content
    ).session_start_info.hparams
    assert start["optimizer.type"].string_value == "Adam"
    assert start["clip_norm"].number_value == 1.0
    assert start["note"].string_value == "first"


@pytest.mark.slow
def test_mlflow_has_parameters_images_and_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    with_media(MLflow("tests", tracking_uri=uri))
    client = tracking.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.data.params["optimizer.type"] == "Adam"
    assert run.data.params["fit.until"] == "4 steps"
    files = [file.path for file in client.list_artifacts(run.info.run_id, "media/gray")]
    assert [Path(file).name for file in files] == ["step-00000002.png", "step-00000004.png"]
    text = client.download_artifacts(run.info.run_id, "media/text/step-00000002.txt")
    assert Path(text).read_text() == "<b>step 2</b>"


def test_parameters_that_mlflow_refuses_once_leave_no_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    log_batch, failed = tracking.MlflowClient.log_batch, []

    def failing(self: Any, run_id: str, **options: Any) -> None:
        if options.get("params") and not failed:
            failed.append(True)
            raise ConnectionError("cut off")
        log_batch(self, run_id, **options)

    monkeypatch.setattr(tracking.MlflowClient, "log_batch", failing)
    uri = (tmp_path / "mlruns").as_uri()
    with pytest.warns(SinkWarning, match="cut off"):
        fit([MLflow("tests", tracking_uri=uri)])
    client = tracking.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.data.params["optimizer.type"] == "Adam"


def test_wandb_is_given_configuration_images_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    begun: list[dict[str, Any]] = []
    logged: list[tuple[int, dict[str, Any]]] = []

    def init(**options: Any) -> Any:
        begun.append(options)
        log = lambda row, step: logged.append((step, row))  # noqa: E731
        return SimpleNamespace(id="x", log=log, finish=lambda: None)

    monkeypatch.setattr(wandb, "init", init)
    with_media(WandB("tests", mode="offline", config={"note": "first"}))
    (options,) = begun
    assert options["config"]["optimizer"]["type"] == "Adam"
    assert options["config"]["note"] == "first"
    steps = [step for step, _ in logged]
    assert steps == sorted(steps)
    (image,) = [row["gray"] for step, row in logged if step == 2 and "gray" in row]
    assert isinstance(image, wandb.Image)
    (text,) = [row["text"] for step, row in logged if step == 2 and "text" in row]
    assert isinstance(text, wandb.Html)


def test_trackio_is_given_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        begun.append(options)
        return SimpleNamespace(name="a", log=lambda row, step: None, finish=lambda: None)

    stand_in = SimpleNamespace(init=init, Image=lambda array: array, Markdown=str)
    monkeypatch.setitem(__import__("sys").modules, "trackio", stand_in)
    with_media(Trackio("tests"))
    assert begun[0]["config"]["optimizer"]["type"] == "Adam"
