"""Row 35: what the system may decline while a file is written, and what it may not."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes.faults import failing_always

from functrain import tree
from functrain.checkpoint import load, save
from functrain.errors import CheckpointWriteError

NEW = {"params": {"w": torch.ones(4)}, "step": 2}
# Longer than two blocks.
LARGE = {"params": {"w": torch.arange(2_400_000.0)}, "step": 3}


@pytest.mark.row(35)
@pytest.mark.parametrize(
    ("tree_", "most"), [(NEW, 1), (LARGE, 4096), (LARGE, 7777), (LARGE, 1_000_000)]
)
def test_short_writes(
    tree_: Any, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, pwrite, times = os.write, os.pwrite, [0]

    def written(descriptor: int, data: Any) -> int:
        return write(descriptor, memoryview(data)[:most])

    def placed(descriptor: int, data: Any, offset: int) -> int:
        times[0] += 1
        return pwrite(descriptor, memoryview(data)[:most], offset)

    monkeypatch.setattr(os, "write", written)
    monkeypatch.setattr(os, "pwrite", placed)
    save(tmp_path / "c", tree_)
    tensors = 4 * tree_["params"]["w"].numel()
    assert times[0] > tensors / most
    assert tree.equal(load(tmp_path / "c"), tree_)


def test_writing_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("write", "pwrite"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, lambda *_: 0)
            with pytest.raises(CheckpointWriteError, match="wrote nothing"):
                save(tmp_path / "c", NEW)
        assert list(tmp_path.iterdir()) == []


def test_an_invalid_write_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_always(monkeypatch, os, "pwrite", errno.EINVAL)
    with pytest.raises(CheckpointWriteError):
        save(tmp_path / "c", LARGE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_reserving_space_may_be_unsupported(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = failing_always(monkeypatch, os, "posix_fallocate", code)
    save(tmp_path / "c", LARGE)
    assert times[0] >= 1
    assert tree.equal(load(tmp_path / "c"), LARGE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_noticed_before_the_payload_is_written(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_always(monkeypatch, os, "posix_fallocate", code)
    written = failing_always(monkeypatch, os, "pwrite", errno.EIO)
    with pytest.raises(CheckpointWriteError) as caught:
        save(tmp_path / "c", LARGE)
    assert (caught.value.errno, written) == (code, [0])
    assert list(tmp_path.iterdir()) == []
