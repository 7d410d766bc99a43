"""The order of operations that makes a checkpoint durable, and who may clear away what."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain import tree
from functrain.checkpoint import load, save
from functrain.checkpoint.storage import reading, writing
from functrain.checkpoint.storage.commit import commit, sweep
from functrain.errors import CheckpointExistsError

TREE = {"params": {"w": torch.ones(3)}, "ema": {"w": torch.zeros(3)}}


def test_the_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []
    write, pwrite, fsync, rename = os.write, os.pwrite, os.fsync, os.rename

    def name(descriptor: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        return path.suffix if path.suffix == ".writing" else path.name

    def record(kind: str, call: Any) -> Any:
        def recorded(*args: Any) -> Any:
            said.append((kind, name(args[0])))
            return call(*args)

        return recorded

    def renamed(old: Path, new: Path) -> None:
        said.append(("rename", new.name))
        rename(old, new)

    monkeypatch.setattr(os, "write", record("write", write))
    monkeypatch.setattr(os, "pwrite", record("write", pwrite))
    monkeypatch.setattr(os, "fsync", record("fsync", fsync))
    monkeypatch.setattr(os, "rename", renamed)
    save(tmp_path / "c", TREE)
    assert list(dict.fromkeys(said)) == [
        ("write", "params.safetensors"),
        ("fsync", "params.safetensors"),
        ("write", "ema.safetensors"),
        ("fsync", "ema.safetensors"),
        ("write", "manifest.json"),
        ("fsync", "manifest.json"),
        ("fsync", ".writing"),
        ("rename", "c"),
        ("fsync", tmp_path.name),
    ]


def test_new_parents_are_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    save(tmp_path / "a" / "b" / "c", TREE)
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


def test_only_the_dead_are_swept(tmp_path: Path) -> None:
    dead = tmp_path / f".c.1.{'a' * 16}.writing"
    other = tmp_path / f".d.1.{'a' * 16}.writing"
    mine = tmp_path / ".c.backup"
    for directory in (dead, other, mine):
        directory.mkdir()

    def fill(living: Path) -> None:
        assert not dead.exists()
        sweep(tmp_path)  # another writer, while this one is at work
        assert living.exists()
        (living / "file").write_text("")

    commit(tmp_path / "c", fill, check=lambda _: None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".c.backup", "c"]


def test_the_second_of_two_savers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name may be taken while the files are being written."""
    write = writing.write

    def slow(*args: Any) -> Any:
        monkeypatch.setattr(writing, "write", write)
        save(tmp_path / "c", {"by": "the first"})
        return write(*args)

    monkeypatch.setattr(writing, "write", slow)
    with pytest.raises(CheckpointExistsError, match="overwrite=True"):
        save(tmp_path / "c", TREE)
    assert load(tmp_path / "c") == {"by": "the first"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_savers_of_the_same_path(tmp_path: Path) -> None:
    """Each replaces the other's wholly; a reader always finds one of them."""
    place = tmp_path / "c"
    save(place, {"by": -1, "w": torch.full((100,), -1.0)})
    errors: list[BaseException] = []

    def saving(number: int) -> None:
        try:
            for _ in range(10):
                tree_ = {"by": number, "w": torch.full((100,), float(number))}
                save(place, tree_, overwrite=True)
        except BaseException as error:  # (raised by the main thread)
            errors.append(error)

    threads = [threading.Thread(target=saving, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    loaded = load(place)
    assert tree.equal(loaded["w"], torch.full((100,), float(loaded["by"])))
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_space_is_checked_while_another_saver_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, aside, ask = tmp_path / "c", tmp_path / "aside", shutil.disk_usage
    save(place, TREE)

    def asked(path: Path) -> Any:
        os.rename(place, aside)
        try:
            return ask(path)
        finally:
            os.rename(aside, place)

    monkeypatch.setattr(shutil, "disk_usage", asked)
    save(place, {"by": "the second"}, overwrite=True)
    assert load(place) == {"by": "the second"}


def test_the_root_is_not_replaced() -> None:
    with pytest.raises(CheckpointExistsError, match="not replaced"):
        save("/", TREE, overwrite=True)


def test_a_checkpoint_renamed_while_it_is_read_is_read_at_its_new_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another saver is between its two renames."""
    place, read = save(tmp_path / "c", TREE), reading.read
    older = place.parent / f".c.{os.getpid()}.0123456789abcdef.replaced"

    def disturbed(*args: Any, **options: Any) -> Any:
        if place.exists():
            os.rename(place, older)
        return read(*args, **options)

    monkeypatch.setattr(reading, "read", disturbed)
    assert tree.equal(load(place), TREE)


def test_a_reader_slower_than_the_savers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end they wait for it."""
    place, read = save(tmp_path / "c", {"w": torch.tensor(0.0)}), reading.read
    savers: list[threading.Thread] = []

    def disturbed(*args: Any, **options: Any) -> Any:
        other = {"w": torch.tensor(1.0 + len(savers))}
        savers.append(
            threading.Thread(target=save, args=(place, other), kwargs={"overwrite": True})
        )
        savers[-1].start()
        savers[-1].join(timeout=1.0)
        return read(*args, **options)

    monkeypatch.setattr(reading, "read", disturbed)
    loaded = load(place)
    for saver in savers:
        saver.join()
    monkeypatch.undo()
    assert loaded == {"w": torch.tensor(len(savers) - 1.0)}
    assert load(place) == {"w": torch.tensor(float(len(savers)))}
