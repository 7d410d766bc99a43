"""A ``fit`` call that is edited and repeated with the same directory."""

from __future__ import annotations

import io
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import in_notebook
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

import functrain as ft
from functrain import errors, listeners
from functrain.data import as_source
from functrain.data.description import describe
from functrain.training import run_record
from functrain.training.resume import TYPES

X = torch.linspace(-1, 1, 48).reshape(16, 3)


def program(lr: float = 0.01, p: float = 0.1, **options: Any) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(p))
    return ft.program(model, lambda m, x: m(x).square().mean(), ft.optim.SGD(lr=lr), **options)


def fit(directory: Path | None, until: str = "1 epoch", **options: Any) -> ft.Run:
    data = options.pop("data", None) or ft.data.Batches(X, 4)
    made = options.pop("program", None) or program()
    return ft.fit(made, data, until=until, directory=directory, **options)


class TestARunThatIsOver:
    def test_is_given_back_and_says_that_nothing_was_trained(self, tmp_path: Path) -> None:
        run = fit(tmp_path)
        assert run.new_steps == 4
        assert "nothing" not in repr(run)
        out, screen = io.StringIO(), io.StringIO()
        bar = listeners.ProgressBar(Console(file=screen, width=200))
        again = fit(tmp_path, listeners=[listeners.Console(file=out), bar])
        assert ft.tree.diff(again.state, run.state) == []
        assert again.history["loss"] == run.history["loss"]
        assert again.new_steps == 0
        assert "nothing was trained by this call" in repr(again)
        assert "nothing was trained" in in_notebook(again)
        told = f"nothing to train: the run in {tmp_path} already ended at step 4 (max_epochs: "
        for text in (out.getvalue(), screen.getvalue()):
            assert told in text
            assert "continu" not in text

    def test_that_an_early_stop_ended_says_so(self, tmp_path: Path) -> None:
        stop: Any = {"early_stop": ft.EarlyStop("eval/loss", patience=1, min_delta=9.0, mode="min")}
        fit(tmp_path, "9 epochs", eval_data=[X], **stop)
        out = io.StringIO()
        shown = [listeners.Console(file=out)]
        again = fit(tmp_path, "9 epochs", eval_data=[X], listeners=shown, **stop)
        assert again.new_steps == 0
        assert "already ended at step 8 (early_stop: " in out.getvalue()

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            (
                {"program": lambda: program(lr=0.5)},
                r"recipe\.optimizer\.lr: 0\.01 in the checkpoint, 0\.5 now",
            ),
            ({"program": lambda: program(p=0.5)}, r"modules\.1: 'Dropout\(p=0\.1.* .*p=0\.5.* now"),
            ({"program": lambda: program(clip_norm=1.0)}, r"recipe\.clip_norm: None .* 1\.0 now"),
            (
                {"program": lambda: ft.compiled(program(), backend="eager")},
                r"step: 'eager' .* 'compiled\(eager\)' now",
            ),
            ({"data": lambda: ft.data.Batches(X + 1, 4)}, r"data\.contents: '\w+' .* '\w+' now"),
            ({"data": lambda: ft.data.Batches(X, 4, seed=1)}, r"data\.seed: 0 .* 1 now"),
            ({"data": lambda: ft.data.Batches(X, 2)}, r"data\.batch_size: 4 .* 2 now"),
            ({"data": lambda: ft.data.Batches(X, 4, shuffle=False)}, r"data\.order: 'shuffled'"),
        ],
        ids=[
            "lr",
            "layer",
            "clip",
            "transformation",
            "contents",
            "data seed",
            "batch size",
            "order",
        ],
    )
    def test_refuses_what_changed(
        self, changed: dict[str, Callable[[], Any]], told: str, tmp_path: Path
    ) -> None:
        fit(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        options = {name: make() for name, make in changed.items()}
        with pytest.raises(errors.RunChangedError, match=rf"(?s)max_epochs.*{told}.*another dir"):
            fit(tmp_path, **options)
        after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        assert {path: after[path] for path in before if path.name != ".lock"} == {
            path: time for path, time in before.items() if path.name != ".lock"
        }

    def test_goes_on_with_what_changed_where_it_is_longer(self, tmp_path: Path) -> None:
        fit(tmp_path)
        with pytest.warns(errors.RecipeChangedWarning, match=r"lr: 0\.01 .* 0\.5 now") as warned:
            run = fit(tmp_path, "2 epochs", program=program(lr=0.5), data=ft.data.Batches(-X, 4))
        assert "data.contents: " in str(warned[0].message)
        assert run.new_steps == 4

    def test_of_another_machine_is_given_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where nothing is computed, no warning says that something is. Warnings are errors."""
        fit(tmp_path)
        monkeypatch.setattr(run_record, "environment", lambda: {"torch": "1.0"})
        assert fit(tmp_path).new_steps == 0
        with pytest.warns(errors.RecipeChangedWarning, match="torch"):
            fit(tmp_path, "2 epochs")

    def test_that_is_longer_than_asked_for_is_warned_about(self, tmp_path: Path) -> None:
        run = fit(tmp_path, "2 epochs")
        with pytest.warns(errors.ResumeWarning, match="at step 8, beyond the 4"):
            again = fit(tmp_path, "1 epoch")
        assert ft.tree.diff(again.state, run.state) == []

    @pytest.mark.parametrize("data", [lambda: ft.data.Batches(X, 5), lambda: Unknown()])
    @pytest.mark.parametrize(
        ("until", "shorter"),
        [
            ("11 samples", True),
            ("15 samples", True),
            ("27 samples", True),
            ("31 samples", True),
            ("32 samples", False),
            ("0.0001 seconds", True),
            ("1 epoch", True),
            ("2 epochs", False),
            (["9 hours", "1 epoch"], True),
            (["9 steps", "1 epoch"], True),
            (["8 steps", "9 epochs"], False),
        ],
    )
    def test_is_longer_only_if_it_had_reached_a_limit_before_its_last_step(
        self, data: Any, until: Any, shorter: bool, tmp_path: Path
    ) -> None:
        run = fit(tmp_path, "2 epochs", data=data())
        assert run.state.counters.samples == 32
        with warnings.catch_warnings(record=True, action="always") as caught:
            again = fit(tmp_path, until, data=data())
        assert [one.category for one in caught] == [errors.ResumeWarning] * shorter
        assert again.new_steps == 0

    def test_that_a_time_limit_ended_is_not_longer(self, tmp_path: Path) -> None:
        slow = [X[:8]] * 400
        run = fit(tmp_path, "0.1 seconds", data=slow)
        assert run.detail == "reached 0.1 seconds"
        assert fit(tmp_path, "0.1 seconds", data=slow).new_steps == 0
        with pytest.warns(errors.ResumeWarning, match=r"beyond the 0\.0001 seconds of this"):
            fit(tmp_path, "0.0001 seconds", data=slow)


class Unknown:
    """Data that does not say how many batches it has."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(X.split(5))


class OtherRuns:
    """A listener that begins a run of the same process in another thread at each epoch's end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.caught: list[Exception] = []

    def on_epoch_end(self, *_: Any) -> None:
        thread = threading.Thread(target=self.run)
        thread.start()
        thread.join()

    def run(self) -> None:
        try:
            fit(self.directory, "3 epochs", program=program(lr=0.1))
        except Exception as error:
            self.caught.append(error)


@pytest.mark.parametrize("link", [False, True])
def test_two_runs_of_one_process_do_not_share_a_directory(tmp_path: Path, link: bool) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (tmp_path / "link").symlink_to(directory)
    others = OtherRuns(tmp_path / "link" if link else directory)
    run = fit(directory, "2 epochs", listeners=[others], save_every="2 steps")
    assert [type(error) for error in others.caught] == [errors.RunDirectoryBusyError] * 2
    assert "another run of this process" in str(others.caught[0])
    rows = (directory / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(1, 9))
    assert ft.tree.equal(run.state, fit(None, "2 epochs").state)
    assert fit(directory, "3 epochs").new_steps == 4  # the directory is free again


class TestASeed:
    def test_is_0_by_default_and_that_of_the_run_afterwards(self, tmp_path: Path) -> None:
        assert fit(None).state.rng.seed == 0
        assert fit(tmp_path, seed=3).state.rng.seed == 3
        assert fit(tmp_path, "2 epochs").state.rng.seed == 3
        assert fit(tmp_path, "3 epochs", seed=3).state.rng.seed == 3

    @pytest.mark.parametrize("until", ["1 epoch", "2 epochs"])
    def test_of_another_run_is_refused(self, until: str, tmp_path: Path) -> None:
        fit(tmp_path)
        with pytest.raises(errors.RunChangedError, match=r"seed=5 has no effect .* seed is 0"):
            fit(tmp_path, until, seed=5)

    def test_of_another_run_that_it_goes_on_from_is_refused(self, tmp_path: Path) -> None:
        fit(tmp_path / "a", seed=3)
        origin = tmp_path / "a" / "step-00000004"
        with pytest.raises(errors.RunChangedError, match="seed=0 has no effect"):
            fit(tmp_path / "b", "2 epochs", resume=origin, seed=0)
        assert fit(tmp_path / "b", "2 epochs", resume=origin).state.rng.seed == 3

    def test_with_a_state_is_that_of_the_state(self) -> None:
        state = program().init(seed=2)
        assert fit(None, state=state, seed=2).state.rng.seed == 2
        with pytest.raises(errors.ConfigurationError, match=r"seed=0 has no effect .* seed is 2"):
            fit(None, state=state, seed=0)
        assert fit(None, state=ft.fork(state, seed=0), seed=0).state.rng.seed == 0

    @pytest.mark.parametrize("until", ["1 epoch", "2 epochs"])
    def test_of_a_state_is_refused_where_it_has_no_effect(self, until: str, tmp_path: Path) -> None:
        fit(tmp_path, state=program().init(seed=2))
        with pytest.raises(errors.RunChangedError, match=r"state= has the seed 7, .* seed is 2\."):
            fit(tmp_path, until, state=program().init(seed=7))
        assert fit(tmp_path, until, state=program().init(seed=2)).state.rng.seed == 2


def test_a_checkpoint_without_contents_is_resumed(tmp_path: Path) -> None:
    """As earlier versions wrote them. Warnings are errors here."""
    fit(tmp_path)
    store = ft.Checkpoints(tmp_path)
    state, manifest = store.restore("latest", types=TYPES)
    described = {**manifest.info["data"]}
    del described["contents"], described["order"]
    info = {**manifest.info, "data": described}
    store.save(state, step=4, metrics=manifest.metrics, info=info)
    assert fit(tmp_path, data=ft.data.Batches(-X, 4)).new_steps == 0
    assert fit(tmp_path, "2 epochs", data=ft.data.Batches(-X, 4)).new_steps == 4


# -- contents ------------------------------------------------------------------------------------


class Augmented(Dataset[Tensor]):
    """Samples that differ each time, a counter and a cache."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.calls, self.cache, self._last = rows, 0, {}, rows[0]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        self.calls += 1
        self.cache[str(index)] = self._last = self.rows[index] + torch.rand(3)
        return self._last


class Lazy(Augmented):
    """Samples that are read when they are asked for, and kept."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__(rows)
        self.read: dict[str, Tensor] = {}
        self.order: list[int] = []

    def __getitem__(self, index: int) -> Tensor:
        self.order.append(index)
        return self.read.setdefault(str(index), self.rows[index] * 2)


class Files(Dataset[Tensor]):
    def __init__(self, root: str, names: list[str]) -> None:
        self.samples = [(f"{root}/images/{name}", index % 2) for index, name in enumerate(names)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        raise AssertionError("no sample is read")


class Endless:
    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Tensor]:
        yield self.rows


def frame(rows: Tensor) -> Any:
    pandas = pytest.importorskip("pandas")
    dataset = Augmented(X)
    dataset.rows = pandas.DataFrame(rows.numpy(), columns=list("abc"))
    return dataset


def hugging_face(rows: Tensor, transform: bool) -> Any:
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"x": rows.tolist()})
    return made.with_transform(_no_code) if transform else made


def _no_code(rows: Any) -> Any:
    raise AssertionError("no transform is called")


MADE: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda rows: ft.data.Batches(rows, 4),
    "many": lambda rows: ft.data.Batches(rows.repeat(9999, 1), 4),
    "strided": lambda rows: ft.data.Batches(rows.repeat(9999, 1)[::2], 4),
    "bfloat16": lambda rows: ft.data.Batches(rows.bfloat16(), 4),
    "complex": lambda rows: ft.data.Batches(rows.to(torch.complex64).conj(), 4),
    "columns": lambda rows: ft.data.Batches({"x": X, "y": rows}, 4),
    "arrays": lambda rows: ft.data.Batches((X.numpy(), rows.numpy()), 4),
    "tensor dataset": lambda rows: ft.data.Batches(TensorDataset(X, rows), 4),
    "transformed": lambda rows: ft.data.Batches(rows, 4, transform=_no_code),
    "augmented": lambda rows: ft.data.Batches(Augmented(rows), 4),
    "subset": lambda rows: ft.data.Batches(Subset(Augmented(rows), range(8)), 4),
    "concatenated": lambda rows: ft.data.Batches(ConcatDataset([Augmented(X), Augmented(rows)]), 4),
    "texts": lambda rows: ft.data.Batches([str(row) for row in rows.tolist()], 4),
    "files": lambda rows: ft.data.Batches(Files("/a", [f"{x:.2f}" for x in rows[:, 0]]), 4),
    "frame": lambda rows: ft.data.Batches(frame(rows), 4),
    "hugging face": lambda rows: ft.data.Batches(hugging_face(rows, False), 4),
    "hugging face's transform": lambda rows: ft.data.Batches(hugging_face(rows, True), 4),
    "list": lambda rows: [X[:4], rows[4:8]],
    "list of dicts": lambda rows: [{"x": X[:4], "y": [rows[4:8], "text"]}],
    "loader": lambda rows: DataLoader(Augmented(rows), batch_size=4, shuffle=True),
    "prefetched": lambda rows: ft.data.prefetched(ft.data.Batches(rows, 4), "cpu"),
    "mixture": lambda rows: ft.data.Mixture({"a": [X], "b": ft.data.Batches(rows, 4)}),
}


def contents(data: Any) -> Any:
    return describe(as_source(data))["contents"]


class TestContents:
    @pytest.mark.parametrize("name", MADE)
    def test_are_distinguished_and_nothing_else_is(self, name: str) -> None:
        random = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        found = contents(MADE[name](X))
        assert isinstance(found, str)
        assert found == contents(MADE[name](X.clone()))
        assert found != contents(MADE[name](X * 2))
        assert torch.equal(torch.random.get_rng_state(), random[0])
        assert (np.random.get_state()[1] == random[1]).all()

    def test_are_what_they_were_after_an_epoch(self) -> None:
        for make in (lambda: ft.data.Batches(Augmented(X), 4), lambda: MADE["loader"](X)):
            data = make()
            before = contents(data)
            list(data)
            assert contents(data) == before

    def test_that_change_as_they_are_read_are_unknown(self, tmp_path: Path) -> None:
        """The same call again gives the run back, and goes on. Warnings are errors here."""
        data = ft.data.Batches(Lazy(X), 4)
        fit(tmp_path, data=data)
        assert fit(tmp_path, data=data).new_steps == 0
        assert fit(tmp_path, "2 epochs", data=data).new_steps == 4
        for until, made in (("2 epochs", 0), ("3 epochs", 4), ("3 epochs", 0)):
            assert fit(tmp_path, until, data=ft.data.Batches(Lazy(X), 4)).new_steps == made

    def test_do_not_depend_on_where_files_lie(self) -> None:
        names = ["one.png", "two.png"]
        found = [contents(ft.data.Batches(Files(root, names), 2)) for root in ("/a", "/b/c")]
        assert found[0] == found[1]

    def test_of_an_array_on_the_disk_are_read_in_part(self, tmp_path: Path) -> None:
        rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (10_000, 300))
        before = contents(ft.data.Batches(rows, 4))
        rows[-1, -1] = 1
        assert contents(ft.data.Batches(rows, 4)) != before

    @pytest.mark.parametrize("make", [lambda: Endless(X), lambda: iter([X])])
    def test_of_what_makes_its_batches_are_unknown(self, make: Any) -> None:
        data = make()
        assert contents(data) is None
        assert next(iter(data)) is X

    def test_are_saved_with_a_checkpoint(self, tmp_path: Path) -> None:
        fit(tmp_path)
        manifest = json.loads((tmp_path / "step-00000004" / "manifest.json").read_bytes())
        assert contents(ft.data.Batches(X, 4)) in json.dumps(manifest)
