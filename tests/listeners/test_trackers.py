"""Row 41: TensorBoard, Weights & Biases, MLflow and Trackio, read back with their own tools."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_runs import CutAt, FailAt, fit, program, with_media

import functrain as ft
from functrain.errors import ListenerError, MissingExtraError, SinkWarning
from functrain.listeners import MLflow, Sink, TensorBoard, Trackio, WandB
from functrain.listeners.sinks import sink as sink_module
from functrain.training.history import History

Columns = dict[str, list[tuple[int, float]]]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write each row at once, so that destinations have more rows than a checkpoint."""
    monkeypatch.setattr(sink_module, "_MOST_ROWS", 1)


def columns(history: History, without: tuple[str, ...] = ("step",)) -> Columns:
    names = [name for name in history.names() if name not in without]
    return {name: list(zip(*history.column(name), strict=True)) for name in names}


def cut_and_resumed(make: Callable[[], Sink], directory: Path) -> ft.Run:
    """End a run normally, and another by an error far from a checkpoint."""
    options = {"directory": directory, "save_every": "6 steps"}
    fit([make(), CutAt(4)], **options)
    with pytest.raises(ListenerError):
        fit([make(), FailAt(11)], **options)
    return fit([make()], **options)


# -- TensorBoard ---------------------------------------------------------------------------------


def board_of(directory: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(directory), size_guidance={"scalars": 0})
    return found.Reload()


def scalars(directory: Path) -> Columns:
    found = board_of(directory)
    tags = found.Tags()["scalars"]
    return {tag: [(each.step, each.value) for each in found.Scalars(tag)] for tag in tags}


def in_float32(expected: Columns) -> Columns:
    return {
        name: [(step, float(np.float32(value))) for step, value in values]
        for name, values in expected.items()
    }


@pytest.mark.row(41)
@pytest.mark.row(34)
def test_tensorboard_has_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = tmp_path / "board"
    run = cut_and_resumed(lambda: TensorBoard(board), tmp_path / "run")
    assert scalars(board) == in_float32(columns(run.history))


@pytest.mark.row(34)
def test_tensorboard_ignores_steps_a_killed_run_wrote_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = tmp_path / "board"
    fit([TensorBoard(board)], until="9 steps", save_every="50 steps")  # all of it is ignored
    run = fit([TensorBoard(board)], until="7 steps")
    found = scalars(board)
    assert found["loss"] == in_float32(columns(run.history))["loss"]


@pytest.mark.row(41)
def test_tensorboard_shows_the_recipe_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    config = program().recipe.describe()
    for until in ("3 steps", "6 steps"):
        sink = TensorBoard(tmp_path / "board", config=config)
        fit([sink], directory=tmp_path / "run", until=until)
    (text,) = board_of(tmp_path / "board").Tensors("config/text_summary")
    assert '"clip_norm": 1.0' in text.tensor_proto.string_val[0].decode()


def test_tensorboard_has_hyperparameters_images_and_texts(tmp_path: Path) -> None:
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    images = pytest.importorskip("PIL.Image")
    with_media(TensorBoard(tmp_path, config={"note": "first"}))
    found = board_of(tmp_path)
    assert [each.step for each in found.Images("gray")] == [2, 4]
    assert images.open(io.BytesIO(found.Images("gray")[0].encoded_image_string)).size == (3, 2)
    texts = found.Tensors("text/text_summary")
    assert "<b>step 2</b>" in texts[0].tensor_proto.string_val[0].decode()
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert start["optimizer.type"].string_value == "Adam"
    assert start["clip_norm"].number_value == 1.0
    assert start["note"].string_value == "first"


# -- Weights & Biases ----------------------------------------------------------------------------


def records(path: Path) -> Iterator[bytes]:
    """Read the records of a .wandb file: LevelDB's log format after a header of 7 bytes."""
    data, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        rest = 32768 - place % 32768
        if rest < 7:
            place += rest
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def logged(directory: Path) -> list[dict[str, Any]]:
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    rows = []
    for file in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for data in records(file):
            record = pb.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                rows.append({"step": items.pop("_step"), **items})
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


@pytest.mark.slow
@pytest.mark.row(41)
@pytest.mark.row(34)
def test_wandb_offline_continues_under_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")

    def make() -> Sink:
        config = program().recipe.describe()
        return WandB("tests", mode="offline", dir=str(tmp_path), config=config)

    fit([make()], directory=tmp_path / "run", until="7 steps")
    run = fit([make()], directory=tmp_path / "run")
    ids = {file.stem for file in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    assert len(ids) == 1
    by_step: dict[int, dict[str, Any]] = {}
    for row in logged(tmp_path):  # the second part repeats the last row of the first
        assert by_step.setdefault(row["step"], row) == row
    assert list(by_step.values()) == run.history.rows


@pytest.mark.row(41)
def test_wandb_that_cannot_start_warns_and_training_continues(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wandb = pytest.importorskip("wandb")

    def refused(**options: Any) -> Any:
        raise wandb.errors.CommError("server away")

    monkeypatch.setattr(wandb, "init", refused)
    with pytest.warns(SinkWarning, match=r"WandB\('tests'\).*CommError: server away") as caught:
        run = fit([WandB("tests")])
    assert len(caught) == 1
    assert run.reason == "max_steps"


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


# -- MLflow --------------------------------------------------------------------------------------


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def only_run(uri: str, history: History) -> tuple[Any, Any]:
    """Return a client and the only run of the experiment, after a check of its metrics."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    (found,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    for name, values in columns(history, ("step", "epoch")).items():
        measured = client.get_metric_history(found.info.run_id, name)
        assert sorted((each.step, each.value) for each in measured) == values, name
    return client, found


@pytest.mark.row(41)
@pytest.mark.row(34)
def test_mlflow_has_every_step_once_in_one_run(tmp_path: Path, uri: str) -> None:
    config = program().recipe.describe()
    make = lambda: MLflow("tests", tracking_uri=uri, name="mine", config=config)  # noqa: E731
    run = cut_and_resumed(make, tmp_path / "run")
    _, found = only_run(uri, run.history)
    assert (found.info.run_name, found.info.status) == ("mine", "FINISHED")
    assert found.data.params["optimizer.type"] == "Adam"


@pytest.mark.row(41)
def test_a_half_failed_mlflow_request_duplicates_nothing(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(sink_module, "_MOST_ROWS", 64)
    log_batch, calls = MlflowClient.log_batch, []

    def halfway(self: Any, run_id: str, metrics: Any = (), **options: Any) -> None:
        calls.extend([len(metrics)] if metrics else [])
        if metrics and len(calls) == 1:
            log_batch(self, run_id, metrics=metrics[: len(metrics) // 2])
            raise ConnectionError("cut off")
        log_batch(self, run_id, metrics=metrics, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", halfway)
    with pytest.warns(SinkWarning, match="cut off"):
        run = fit([MLflow("tests", tracking_uri=uri)])
    only_run(uri, run.history)


def test_parameters_that_mlflow_refuses_once_leave_no_second_run(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    log_batch, failed = MlflowClient.log_batch, []

    def failing(self: Any, run_id: str, **options: Any) -> None:
        if options.get("params") and not failed:
            failed.append(True)
            raise ConnectionError("cut off")
        log_batch(self, run_id, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    with pytest.warns(SinkWarning, match="cut off"):
        run = fit([MLflow("tests", tracking_uri=uri)])
    _, found = only_run(uri, run.history)
    assert found.data.params["optimizer.type"] == "Adam"


@pytest.mark.slow
def test_mlflow_has_parameters_images_and_texts(uri: str) -> None:
    run = with_media(MLflow("tests", tracking_uri=uri))
    client, found = only_run(uri, run.history)
    assert found.data.params["optimizer.type"] == "Adam"
    assert found.data.params["fit.until"] == "4 steps"
    files = [file.path for file in client.list_artifacts(found.info.run_id, "media/gray")]
    assert [Path(file).name for file in files] == ["step-00000002.png", "step-00000004.png"]
    text = client.download_artifacts(found.info.run_id, "media/text/step-00000002.txt")
    assert Path(text).read_text() == "<b>step 2</b>"


# -- Trackio -------------------------------------------------------------------------------------


@pytest.mark.row(41)
def test_trackio_logs_by_step_and_continues_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in has the interface of version 0.27: trackio.init, Run.log, Run.finish."""
    begun: list[dict[str, Any]] = []
    configs: list[Any] = []
    rows: list[Any] = []

    def init(
        project: str, name: str | None = None, config: Any = None, resume: str = "never"
    ) -> Any:
        begun.append({"project": project, "name": name, "resume": resume})
        configs.append(config)

        def log(metrics: dict[str, Any], step: int | None = None) -> None:
            rows.append({"step": step, **metrics})

        return SimpleNamespace(name=name or "brave-fox-0", log=log, finish=lambda: None)

    stand_in = SimpleNamespace(init=init, Image=lambda array: "image", Markdown=str)
    monkeypatch.setitem(sys.modules, "trackio", stand_in)
    fit([Trackio("tests")], directory=tmp_path / "run", until="7 steps")
    run = fit([Trackio("tests")], directory=tmp_path / "run")
    assert begun == [
        {"project": "tests", "name": None, "resume": "never"},
        {"project": "tests", "name": "brave-fox-0", "resume": "allow"},
    ]
    assert {row["step"]: row for row in rows} == {row["step"]: row for row in run.history.rows}
    assert [config["optimizer"]["type"] for config in configs] == ["Adam", "Adam"]
    with_media(Trackio("tests"))
    assert rows[-2:] == [{"step": 4, "gray": "image"}, {"step": 4, "text": "<b>step 4</b>"}]


@pytest.mark.parametrize(
    ("package", "make"),
    [
        ("wandb", lambda: WandB("tests")),
        ("mlflow", lambda: MLflow("tests")),
        ("trackio", lambda: Trackio("tests")),
        ("tensorboard", lambda: TensorBoard("there")),
    ],
)
def test_a_missing_package_is_an_error_before_the_first_step(
    package: str, make: Callable[[], Sink], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    imported = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return imported(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ListenerError, match=rf"failed at step 0.*functrain\[{package}\]") as caught:
        fit([make()])
    assert isinstance(caught.value.__cause__, MissingExtraError)
