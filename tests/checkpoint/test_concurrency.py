"""Readers concurrent with a writer always get one complete checkpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from functrain.checkpoint import Checkpoints, load, read_manifest, save, verify


def make(step: int) -> dict[str, Any]:
    return {"params": {str(i): torch.full((300,), float(step)) for i in range(8)}, "step": step}


def whole(value: Any) -> bool:
    return all((leaf == value["step"]).all() for leaf in value["params"].values())


@contextmanager
def writer_thread(write: Callable[[int], Any]) -> Iterator[threading.Event]:
    """Write step after step in another thread, for as long as the block lasts."""
    stop, begun, failures = threading.Event(), threading.Event(), []

    def go() -> None:
        try:
            for step in range(1, 100_000):
                write(step)
                begun.set()
                if stop.is_set():
                    return
        except BaseException as error:
            failures.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=go)
    thread.start()
    begun.wait(10)
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
        assert failures == []


@pytest.mark.row(35)
def test_a_checkpoint_that_is_replaced_again_and_again(tmp_path: Path) -> None:
    seen = set()
    with writer_thread(lambda step: save(tmp_path / "c", make(step), step=step, overwrite=True)):
        for _ in range(2000):
            value = load(tmp_path / "c")
            assert whole(value)
            verify(tmp_path / "c")
            assert read_manifest(tmp_path / "c").step >= value["step"]
            seen.add(value["step"])
            if len(seen) == 12:
                break
    assert len(seen) == 12


@pytest.mark.row(37)
@pytest.mark.parametrize("which", ["latest", "best"])
def test_checkpoints_that_are_saved_and_pruned_meanwhile(tmp_path: Path, which: str) -> None:
    store, seen = Checkpoints(tmp_path, keep_last=1), set()

    def write(step: int) -> None:
        store.save(make(step), step=step, metrics={"loss": -step})

    with writer_thread(write):
        for _ in range(2000):
            value, manifest = store.restore(which)
            assert whole(value)
            assert manifest.step == value["step"]
            seen.add(value["step"])
            assert store.best() is not None
            if len(seen) == 12:
                break
    assert len(seen) == 12
