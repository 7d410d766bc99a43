"""Rows 35 and 36: frozen tensors are one file in all checkpoints of a run, and none depends on it.

A file is linked from the checkpoint before only if every byte of it is what is to be saved.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from crashes.explore import explore
from crashes.faults import each_call_failing, failing_always
from crashes.log import Recorder
from crashes.operations import Mark
from crashes.scenarios import Scenario, promised
from torch import Tensor, nn
from xxhash import xxh3_128_hexdigest

import functrain as ft
from functrain import tree
from functrain.checkpoint import Checkpoints, load, read_manifest, verify
from functrain.checkpoint.background import Saver
from functrain.checkpoint.storage import commit, writing
from functrain.checkpoint.storage.files import sync_directory
from functrain.errors import (
    CheckpointChangedError,
    CheckpointCorruptError,
    CheckpointWriteError,
    NoCheckpointError,
)

FILE = "frozen.safetensors"
FROZEN = ("params.base", "params.empty", "params.half", "params.strided")
ERRORS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOENT, errno.ENOTSUP, errno.EACCES)


def sample(step: int, length: int = 5_000) -> Any:
    params = {
        "base": torch.arange(float(length)),
        "empty": torch.zeros(0),
        "half": torch.arange(33).half(),
        "strided": torch.arange(12.0).reshape(3, 4).t(),
        "head": torch.full((9,), float(step)),
    }
    return {"params": params, "step": step}


def store(directory: Path, **options: Any) -> Checkpoints:
    return Checkpoints(directory / "run", **{"keep_last": None} | options)


def saved(run: Checkpoints, *steps: int, **options: Any) -> Checkpoints:
    for step in steps:
        run.save(sample(step), step=step, frozen=FROZEN, **options)
    return run


def inode(run: Checkpoints, step: int) -> int:
    return (run.path(step) / FILE).stat().st_ino


def are_sound(run: Checkpoints, *steps: int) -> bool:
    return all(tree.equal(run.restore(step)[0], sample(step)) for step in steps)


def on_disk(directory: Path) -> int:
    """Bytes that all files take together, each counted once."""
    found = [each.stat() for each in directory.rglob("*")]
    return sum({each.st_ino: each.st_blocks * 512 for each in found}.values())


# -- what is shared ----------------------------------------------------------------------------


def test_a_run_directory_stores_frozen_tensors_once(tmp_path: Path) -> None:
    sizes = {}
    for shared in (True, False):
        run = store(tmp_path / str(shared), share_frozen=shared)
        for step in range(5):
            run.save(sample(step, 250_000), step=step, frozen=FROZEN)
        assert len({inode(run, step) for step in range(5)}) == (1 if shared else 5)
        sizes[shared] = on_disk(run.directory)
    frozen = 250_000 * 4
    assert frozen < sizes[True] < 1.2 * frozen
    assert sizes[False] > 5 * frozen
    one, other = (tmp_path / str(shared) / "run" / "step-00000004" for shared in (True, False))
    assert tree.equal(load(one), load(other))


def test_written_bytes_are_the_same_with_and_without_sharing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9)
    one = saved(store(tmp_path / "a"), 1, 2).path(2)
    other = saved(store(tmp_path / "b", share_frozen=False), 1, 2).path(2)
    assert sorted(os.listdir(one)) == sorted(os.listdir(other))
    for name in os.listdir(one):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_each_checkpoint_stays_complete_in_any_order_of_removal(tmp_path: Path) -> None:
    master = saved(store(tmp_path / "master"), *range(5))
    for order in itertools.permutations(range(5)):
        run, left = store(tmp_path / "copy"), {*range(5)}
        shutil.copytree(master.directory, run.directory, copy_function=os.link)
        assert len({inode(run, step) for step in left}) == 1
        for step in order:
            assert are_sound(run, *left)
            commit.remove(run.path(step))
            left.remove(step)
        shutil.rmtree(run.directory)
    assert are_sound(master, *range(5))


def test_pruning_keeps_shared_files(tmp_path: Path) -> None:
    run = saved(store(tmp_path, keep_last=1, keep_best=0), *range(5))
    assert run.steps() == [4]
    assert (run.path(4) / FILE).stat().st_nlink == 1
    assert are_sound(run, 4)


def test_one_checkpoint_can_be_copied_alone(tmp_path: Path) -> None:
    run = saved(store(tmp_path), 1, 2)
    subprocess.run(["cp", "-r", run.path(2), tmp_path / "cp"], check=True)
    tar = f"tar -C {run.directory} -c step-00000002 | tar -C {tmp_path} -x"
    subprocess.run(tar, shell=True, check=True)
    shutil.rmtree(run.directory)
    for copy in ("cp", "step-00000002"):
        assert verify(tmp_path / copy).step == 2
        assert tree.equal(load(tmp_path / copy), sample(2))


def test_a_checkpoint_that_is_replaced_gives_its_file_to_the_new_one(tmp_path: Path) -> None:
    run = saved(store(tmp_path), 1)
    before = inode(run, 1)
    saved(run, 1)
    assert inode(run, 1) == before
    assert (run.path(1) / FILE).stat().st_nlink == 1
    assert are_sound(run, 1)


def test_a_fork_shares_files_with_earlier_checkpoints(tmp_path: Path) -> None:
    run = saved(store(tmp_path), 1, 10)
    (run.path(10) / "manifest.json").unlink()
    saved(run, 5)
    assert inode(run, 5) == inode(run, 1)
    saved(run, 0)
    assert inode(run, 0) != inode(run, 1)
    assert are_sound(run, 0, 1, 5)


def test_in_the_background_and_staged(tmp_path: Path) -> None:
    for staged in (False, True):
        run = store(tmp_path / str(staged))
        with Saver(run, staged=staged) as saver:
            for step in range(3):
                saver.save(sample(step), step=step, frozen=FROZEN)
        assert len({inode(run, step) for step in range(3)}) == 1
        assert are_sound(run, 0, 1, 2)


def test_views_are_shared_as_they_are_written(tmp_path: Path) -> None:
    value = torch.randn(40, dtype=torch.complex64)
    params = {"conj": value.conj(), "neg": value.clone().conj().imag, "part": value.clone()[3:9:2]}
    saved_ = {"params": params}
    run, frozen = store(tmp_path), [f"params.{name}" for name in params]
    for step in (1, 2):
        run.save(saved_, step=step, frozen=frozen)
    assert inode(run, 1) == inode(run, 2)
    assert tree.equal(run.restore(2)[0], saved_)


def test_hashes_are_of_each_chunk() -> None:
    value = torch.arange((64 << 20) + 5, dtype=torch.uint8)
    whole = memoryview(value.numpy().tobytes())
    parts = (whole[: 64 << 20], whole[64 << 20 :])
    assert writing.hash_chunks(writing.one_by_one(value)) == tuple(map(xxh3_128_hexdigest, parts))
    assert writing.hash_chunks(writing.one_by_one(value[:0])) == ()


# -- what is not -------------------------------------------------------------------------------


def changed_value(params: dict[str, Tensor]) -> None:
    params["half"] = params["half"].clone()
    params["half"][-1] = 7


CHANGES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "value": changed_value,
    "dtype": lambda params: params.update(half=params["half"].view(torch.int16)),
    "shape": lambda params: params.update(half=params["half"].reshape(3, 11)),
    "length": lambda params: params.update(base=params["base"][1:]),
    "one less": lambda params: params.pop("half"),
    "another name": lambda params: params.update(other=params.pop("half")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_tensors_are_written_again(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, later = saved(store(tmp_path), 1), sample(2)
    CHANGES[change](later["params"])
    frozen = {f"params.{name}" for name in later["params"]} - {"params.head"}

    def needless(*_: Any, **__: Any) -> None:
        raise AssertionError("the manifest says already that it is another file")

    for step in (2, 3):
        with monkeypatch.context() as patch:
            if step == 2:
                patch.setattr(os, "link", needless)
            run.save({**later, "step": step}, step=step, frozen=frozen)
        assert tree.equal(run.restore(step)[0], {**later, "step": step})
    assert are_sound(run, 1)
    assert inode(run, 1) != inode(run, 2) == inode(run, 3)


def test_the_same_bytes_of_another_dtype_are_shared(tmp_path: Path) -> None:
    value, run = torch.randn(4, dtype=torch.complex64), store(tmp_path)
    as_bytes = value.view(torch.float32).view(torch.uint8).reshape(4, 8)
    for step, each in enumerate([value, as_bytes]):  # in the file both are bytes
        run.save({"params": {"w": each}}, step=step, frozen=["params.w"])
        assert tree.equal(run.restore(step)[0], {"params": {"w": each}})
    assert inode(run, 0) == inode(run, 1)


def overwritten(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def renamed(file: Path, put: Callable[[Path], Any]) -> None:
    file.rename(file.parent.parent.parent / "aside")
    put(file)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "header": lambda file: overwritten(file, 20),
    "first leaf": lambda file: overwritten(file, 600),
    "last byte": lambda file: overwritten(file, -1),
    "truncated": lambda file: os.truncate(file, file.stat().st_size - 1),
    "emptied": lambda file: os.truncate(file, 0),
    "longer": lambda file: os.truncate(file, file.stat().st_size + 1),
    "missing": lambda file: file.unlink(),
    "a link": lambda file: renamed(
        file, lambda file: file.symlink_to(file.parent.parent.parent / "aside")
    ),
    "a pipe": lambda file: renamed(file, os.mkfifo),
    "a directory": lambda file: renamed(file, os.mkdir),
    "manifest damaged": lambda file: overwritten(file.parent / "manifest.json", 40),
    "manifest missing": lambda file: (file.parent / "manifest.json").unlink(),
    "no checkpoint": lambda file: shutil.rmtree(file.parent),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_not_carried_over(damage: str, tmp_path: Path) -> None:
    run = saved(store(tmp_path), 1)
    DAMAGES[damage](run.path(1) / FILE)
    saved(run, 2)
    assert (run.path(2) / FILE).stat().st_nlink == 1
    assert are_sound(run, 2)
    with pytest.raises((CheckpointCorruptError, NoCheckpointError)):
        verify(run.path(1))
    saved(run, 3)
    assert inode(run, 3) == inode(run, 2)


def test_files_behind_a_linked_directory_are_not_shared(tmp_path: Path) -> None:
    other = saved(store(tmp_path / "other"), 1)
    run = store(tmp_path)
    run.directory.mkdir()
    run.path(1).symlink_to(other.path(1))
    saved(run, 2)
    assert inode(run, 2) != inode(other, 1)
    assert are_sound(run, 1, 2)


def test_without_frozen_tensors_nothing_earlier_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[Path] = []

    def counted(call: Any) -> Any:
        def made(path: Any, *args: Any, **kwargs: Any) -> Any:
            looked_at.append(Path(path))
            return call(path, *args, **kwargs)

        return made

    for name in ("open", "listdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    counts = []
    for shared, frozen in ((True, ()), (False, ()), (False, FROZEN), (True, FROZEN)):
        run = store(tmp_path / f"{shared} {frozen}", share_frozen=shared)
        run.save(sample(1), step=1, frozen=frozen)
        looked_at.clear()
        run.save(sample(2), step=2, frozen=frozen)
        before = {path.name for path in looked_at if path.parent == run.path(1)}
        assert before <= {"manifest.json"}  # also for what is to be pruned
        counts.append(len(looked_at))
    assert counts[0] == counts[1] < counts[3]


# -- what the system refuses -------------------------------------------------------------------


@pytest.mark.parametrize("code", ERRORS)
def test_if_links_are_refused_the_file_is_written(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(store(tmp_path), 1)
    times = failing_always(monkeypatch, os, "link", code)
    saved(run, 2)
    assert times == [1]
    assert inode(run, 1) != inode(run, 2)
    assert are_sound(run, 1, 2)


@pytest.mark.parametrize("name", ["preadv", "fsync", "open"])
def test_a_linked_file_that_cannot_be_read_or_synced_is_written_instead(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(store(tmp_path), 1)
    linked = inode(run, 1)

    def is_linked(what: Any, *_: Any) -> bool:
        return os.path.exists(what) and os.stat(what).st_ino == linked

    with monkeypatch.context() as patch:
        times = failing_always(patch, os, name, errno.EACCES, is_linked)
        saved(run, 2)
    assert times == [1]
    assert inode(run, 2) != linked
    assert are_sound(run, 1, 2)


@pytest.mark.parametrize("what", ["let go", "damaged", "another for a moment"])
def test_the_earlier_checkpoint_changes_at_the_moment_of_linking(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, link = saved(store(tmp_path), 1), os.link

    def late(source: Any, place: Any, **options: Any) -> None:
        if what == "let go":
            shutil.rmtree(run.path(1))
        if what == "damaged":
            overwritten(Path(source), -1)
        if what == "another for a moment":
            shutil.copyfile(source, tmp_path / "another")
            overwritten(tmp_path / "another", -1)
            source = tmp_path / "another"
        link(source, place, **options)

    monkeypatch.setattr(os, "link", late)
    saved(run, 2)
    assert (run.path(2) / FILE).stat().st_nlink == 1
    assert are_sound(run, 2)


def test_tensors_changed_during_a_save_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, link, value = saved(store(tmp_path), 1), os.link, sample(2)

    def late(*args: Any, **options: Any) -> None:
        value["params"]["base"].add_(1)
        link(*args, **options)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(CheckpointChangedError, match=r"params\.base"):
        run.save(value, step=2, frozen=FROZEN)
    assert run.steps() == [1]
    assert are_sound(run, 1)


def test_no_space_is_required_for_linked_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = saved(store(tmp_path), 1)
    room = 20_000  # less than the frozen tensors and more than all else
    assert (run.path(1) / FILE).stat().st_size > room
    usage = shutil.disk_usage(tmp_path)._replace(free=room)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    saved(run, 2)
    assert are_sound(run, 2)
    with pytest.raises(CheckpointWriteError):
        saved(store(tmp_path, share_frozen=False), 3)
    assert run.steps() == [1, 2]


@pytest.mark.row(35)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_every_call_failing(tmp_path: Path, code: int) -> None:
    saved(store(tmp_path / "before"), 1)
    run, failures = store(tmp_path, keep_last=1, keep_best=0), []

    def prepare() -> None:
        shutil.rmtree(run.directory, ignore_errors=True)
        shutil.copytree(tmp_path / "before" / "run", run.directory)

    for failing, told in each_call_failing(prepare, lambda: saved(run, 2), [code]):
        failures.append(failing.failed)
        loaded, manifest = run.restore()
        assert manifest.step == 2 if told is None else manifest.step in (1, 2)
        assert tree.equal(loaded, sample(manifest.step or 0))
    assert {"link", "open", "preadv", "fsync", "rename", "pwrite", "unlink"} < {*failures}
    assert len(failures) > 40


class Interrupted(BaseException):
    """Raised where a process may be ended by a signal."""


@pytest.mark.row(35)
@pytest.mark.parametrize("name", ["link", "fsync", "rename"])
def test_interrupts_before_and_after_each_call(name: str, tmp_path: Path) -> None:
    call = getattr(os, name)
    for nth, after in itertools.product(range(1, 9), (False, True)):
        run, count = saved(store(tmp_path), 1), [0]

        def interrupting(
            *args: Any, nth: int = nth, after: bool = after, count: list[int] = count, **kwargs: Any
        ) -> None:
            count[0] += 1
            if count[0] == nth and not after:
                raise Interrupted
            call(*args, **kwargs)
            if count[0] == nth:
                raise Interrupted

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, name, interrupting)
            try:
                saved(run, 2)
            except Interrupted:
                assert run.steps() in ([1], [1, 2])
            else:
                assert count[0] < nth
        assert are_sound(run, *run.steps())
        saved(run, 3)
        assert are_sound(run, *run.steps())
        assert inode(run, 3) == inode(run, 1)
        assert not [each for each in os.listdir(run.directory) if each.endswith(".writing")]
        shutil.rmtree(run.directory)


# -- power cuts --------------------------------------------------------------------------------


def check_after_power_cut(root: Path, said: tuple[Mark, ...]) -> None:
    """Check that saved checkpoints exist, all listed ones are valid, and saving works."""
    last, allowed = promised(said)
    run = store(root, keep_last=1, keep_best=0)
    try:
        loaded, manifest = run.restore()
    except NoCheckpointError:
        assert last is None
    else:
        assert manifest.step in allowed
        assert tree.equal(loaded, sample(manifest.step or 0))
    assert are_sound(run, *run.steps())
    saved(run, 99)
    assert run.steps() == [99]
    assert are_sound(run, 99)


def saving(*steps: int, **options: Any) -> Callable[[Path, Recorder], None]:
    def act(root: Path, recorder: Recorder) -> None:
        run = store(root, **options)
        for step in steps:
            recorder.mark("begun", step)
            saved(run, step)
            recorder.mark("returned", step)

    return act


def one_saved(root: Path) -> int:
    saved(store(root), 1)
    return 1


@pytest.mark.row(35)
@pytest.mark.parametrize("options", [{}, {"keep_last": 1, "keep_best": 0}], ids=["all", "one kept"])
def test_power_cuts(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario("sharing", one_saved, saving(2, 3, **options), check_after_power_cut)
    log = scenario.record(tmp_path / "written")
    run = store(tmp_path / "written")
    assert len({inode(run, step) for step in run.steps()}) == 1
    assert explore(scenario, log, tmp_path / "crashed", 150) > 100


def copied_by_hand(root: Path, recorder: Recorder) -> None:
    """Copy a run directory without syncing it, and continue the run in the copy."""
    source, target = root / "source" / "run", root / "run"
    os.mkdir(target)
    sync_directory(root)
    os.mkdir(target / "step-00000001")
    for file in (source / "step-00000001").iterdir():
        descriptor = os.open(target / "step-00000001" / file.name, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, file.read_bytes())
        os.close(descriptor)
    saving(2)(root, recorder)


def check_copy(root: Path, said: tuple[Mark, ...]) -> None:
    if promised(said)[0] == 2:
        assert are_sound(store(root), 2)


@pytest.mark.row(35)
def test_a_power_cut_after_resuming_in_a_copied_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linked file is synced too, because its writer may not have done so."""

    def prepare(root: Path) -> None:
        saved(store(root / "source"), 1)

    scenario = Scenario("copied", prepare, copied_by_hand, check_copy)
    log = scenario.record(tmp_path / "written")
    run = store(tmp_path / "written")
    assert inode(run, 1) == inode(run, 2)
    assert explore(scenario, log, tmp_path / "crashed", 400) > 300


# -- runs --------------------------------------------------------------------------------------


def fit(program: ft.Program, directory: Path, until: str, background: bool = False) -> ft.Run:
    draw = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(3, 6, generator=draw), torch.randint(0, 3, (3,), generator=draw))
        for _ in range(4)
    ]
    return ft.fit(
        program,
        batches,
        until=until,
        save_every="2 steps",
        directory=Checkpoints(directory, keep_last=None, background=background),
    )


def classify(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def with_groups(model: nn.Module) -> ft.Program:
    groups = ft.optim.groups([("0.*", ft.optim.Frozen()), ("*", ft.optim.AdamW(lr=0.01))])
    return ft.program(model, classify, groups)


def with_trainable(model: nn.Module) -> ft.Program:
    return ft.program(model, classify, ft.optim.AdamW(lr=0.01), trainable="1.*")


@pytest.mark.row(36)
@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("made", [with_groups, with_trainable])
def test_a_run_writes_frozen_parameters_once(
    made: Callable[[nn.Module], ft.Program], background: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program = made(nn.Sequential(nn.Linear(6, 50), nn.Linear(50, 3)))
    straight = fit(program, tmp_path / "straight", "8 steps", background)
    fit(program, tmp_path / "resumed", "4 steps", background)
    resumed = fit(program, tmp_path / "resumed", "8 steps", background)
    assert tree.diff(straight.state, resumed.state) == []
    for name in ("straight", "resumed"):
        run = Checkpoints(tmp_path / name)
        assert run.steps() == [2, 4, 6, 8]
        assert len({inode(run, step) for step in run.steps()}) == 1
        file = {leaf.path: leaf.file for leaf in read_manifest(run.path(8)).leaves}
        assert file["train.params.0.weight"] == FILE != file["train.params.1.weight"]
        for step in run.steps():
            run.verify(step)


def test_a_run_without_frozen_tensors_has_no_such_file(tmp_path: Path) -> None:
    program = ft.program(nn.Linear(6, 3), classify, ft.optim.SGD(lr=0.01))
    fit(program, tmp_path / "run", "4 steps")
    assert list((tmp_path / "run").rglob(FILE)) == []


def test_a_name_that_is_not_in_the_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no tensor 'params.nope' in the tree"):
        Checkpoints(tmp_path).save({"params": {"a": torch.ones(2)}}, step=1, frozen=["params.nope"])
    path = Checkpoints(tmp_path).save({"params": {"a": torch.ones(2)}}, step=1, frozen="params.a")
    assert (path / "frozen.safetensors").exists()
