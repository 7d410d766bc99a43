"""Row 38: a run is copied as it trains, and resumes elsewhere from the copy in the same bytes."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import tree
from functrain.checkpoint import Checkpoints
from functrain.checkpoint.remote import RemoteCheckpoints
from functrain.errors import CheckpointWriteError, CheckpointWriteWarning, ListenerError
from functrain.listeners.mirror import Mirror

pytest.importorskip("fsspec", reason="fsspec is not installed")
from fsspec.implementations.memory import MemoryFileSystem

pytestmark = pytest.mark.row(38)


def train(directory: Path, until: str, **options: Any) -> ft.Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    loss = lambda model, x: model(x).square().mean()  # noqa: E731
    program = ft.program(model, loss, ft.optim.Adam(lr=0.01))
    data = ft.data.Batches(torch.randn(40, 3), batch_size=4, shuffle=True)
    return ft.fit(program, data, until=until, directory=directory, save_every="3 steps", **options)


def url() -> str:
    return f"memory://{uuid.uuid4().hex}/run"


@pytest.mark.parametrize("background", [False, True])
def test_a_run_resumes_from_its_copy_in_the_same_bytes(tmp_path: Path, background: bool) -> None:
    straight = train(tmp_path / "straight", "20 steps")
    store = RemoteCheckpoints(url(), keep_last=2)
    here, there = tmp_path / "here", tmp_path / "there"
    directory: Any = Checkpoints(here, keep_last=1, background=background)
    train(directory, "11 steps", listeners=[Mirror(store)])
    assert store.steps() == [9, 11]
    local = Checkpoints(here).path(11)
    copied = {file.name: file.read_bytes() for file in local.iterdir()}
    shutil.rmtree(here)
    place = store.fetch(there)
    assert place == there / "step-00000011"
    assert {file.name: file.read_bytes() for file in place.iterdir()} == copied
    run = train(there, "20 steps", listeners=[Mirror(store)])
    assert tree.equal(run.state, straight.state)
    assert run.history.rows == straight.history.rows
    logs = [(each / "metrics.jsonl").read_bytes() for each in (there, tmp_path / "straight")]
    assert logs[0] == logs[1]
    assert store.steps() == [18, 20]


def break_uploads(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    put = MemoryFileSystem.put_file

    def failing(self: Any, source: str, target: str, **options: Any) -> None:
        if step in target:
            raise TimeoutError("no answer")
        put(self, source, target, **options)

    monkeypatch.setattr(MemoryFileSystem, "put_file", failing)


def test_a_failed_copy_warns_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_uploads(monkeypatch, "step-00000003")
    mirror = Mirror(url())
    with pytest.warns(
        CheckpointWriteWarning, match=r"step-00000003 was saved.*no answer"
    ) as caught:
        run = train(tmp_path / "run", "6 steps", listeners=[mirror])
    assert [each.category for each in caught] == [CheckpointWriteWarning]
    assert run.state.counters.step == 6
    assert mirror.store.steps() == [6]
    assert 3 in Checkpoints(tmp_path / "run").steps()


def test_a_failed_required_copy_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_uploads(monkeypatch, "step-00000003")
    with pytest.raises(ListenerError, match="no answer") as caught:
        train(tmp_path / "run", "6 steps", listeners=[Mirror(url(), required=True)])
    assert isinstance(caught.value.__cause__, CheckpointWriteError)
    assert Checkpoints(tmp_path / "run").steps() == [3]


def test_an_invalid_url_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ListenerError, match=r"failed at step 0.*nonsense"):
        train(tmp_path / "run", "6 steps", listeners=[Mirror("nonsense://there")])
