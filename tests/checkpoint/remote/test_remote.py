"""Rows 33, 36 and 38 in remote stores: whole or absent, found again, faults of the network."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from functrain import tree
from functrain.checkpoint import Checkpoints
from functrain.checkpoint.remote import RemoteCheckpoints, choosing
from functrain.checkpoint.remote import attempts as remote_attempts
from functrain.checkpoint.remote.attempts import Attempt, attempts
from functrain.checkpoint.remote.object_store import ObjectStore
from functrain.errors import (
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointReadError,
    CheckpointSkippedWarning,
    CheckpointWriteError,
    CheckpointWriteWarning,
    ConfigurationError,
    LogError,
    MissingExtraError,
    NoCheckpointError,
)

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

DAY = 24 * 3600 * 10**9


def make(step: int) -> dict[str, Any]:
    return {
        "params": {"w": torch.full((3,), float(step))},
        "optimizer": {"m": torch.ones(step % 7)},
    }


def fill(store: RemoteCheckpoints, losses: dict[int, Any]) -> None:
    for step, loss in losses.items():
        store.save(make(step), step=step, metrics={} if loss is None else {"loss": loss})


# -- a file system that fails -----------------------------------------------------------------


class Crash(BaseException):
    """The process is dead: nothing it would do after that happens."""


@attrs.define
class Plan:
    """The faults of the operations of the ``faulty`` file system, which are counted from 0."""

    fails_at: int | None = None
    how: str = "before"
    done: list[tuple[str, str]] = attrs.field(factory=list)

    def fails(self) -> bool:
        dead = self.how == "crash" and self.fails_at is not None
        number = len(self.done) - 1
        return number == self.fails_at or (dead and number > (self.fails_at or 0))


PLAN = Plan()


@pytest.fixture
def plan() -> Iterator[Plan]:
    PLAN.__init__()  # type: ignore[misc]
    yield PLAN
    PLAN.__init__()  # type: ignore[misc]


class Refusal(Exception):
    """An error that is no OSError, as some libraries of stores raise."""


def operation(name: str) -> Callable[..., Any]:
    def operate(self: Any, *arguments: Any, **options: Any) -> Any:
        act = getattr(MemoryFileSystem(), name)
        place = arguments[1] if name == "put_file" else arguments[0]
        PLAN.done.append((name, place))
        if not PLAN.fails():
            return act(*arguments, **options)
        if PLAN.how == "after":
            act(*arguments, **options)
        if PLAN.how == "torn" and name == "put_file":
            MemoryFileSystem().pipe_file(place, Path(arguments[0]).read_bytes()[:7])
        if PLAN.how == "silently torn" and name in ("put_file", "get_file"):
            act(*arguments, **options)
            if name == "put_file":
                MemoryFileSystem().pipe_file(place, Path(arguments[0]).read_bytes()[:-1])
            else:
                Path(arguments[1]).write_bytes(Path(arguments[1]).read_bytes()[:-1])
            return None
        raise Crash if PLAN.how == "crash" else Refusal("the line is dead")

    return operate


class Faulty(fsspec.AbstractFileSystem):
    protocol = "faulty"
    cachable = False
    ls, exists, makedirs = operation("ls"), operation("exists"), operation("makedirs")
    cat_file, get_file = operation("cat_file"), operation("get_file")
    put_file, pipe_file = operation("put_file"), operation("pipe_file")
    rm_file, rm = operation("rm_file"), operation("rm")


fsspec.register_implementation("faulty", Faulty, clobber=True)


@pytest.fixture
def faulty(plan: Plan) -> RemoteCheckpoints:
    return RemoteCheckpoints(f"faulty://{uuid.uuid4().hex}/run", keep_last=1, keep_best=0)


def in_memory(**rules: Any) -> RemoteCheckpoints:
    return RemoteCheckpoints(f"memory://{uuid.uuid4().hex}", **rules)


# -- stores of several kinds ------------------------------------------------------------------


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    reason = "a local S3 server needs s3fs and moto"
    pytest.importorskip("s3fs", reason=reason, exc_type=ImportError)
    server_module = pytest.importorskip("moto.server", reason=reason, exc_type=ImportError)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {"key": "test", "secret": "test", "endpoint_url": f"http://{host}:{port}"}
        options["client_kwargs"] = {"region_name": "us-east-1"}
        files = fsspec.filesystem("s3", **options)
        files.call_s3("create_bucket", Bucket="bucket")
        yield options
    finally:
        server.stop()


@pytest.fixture(params=["memory", "file", "path", "dir", "s3"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., RemoteCheckpoints]:
    unique = uuid.uuid4().hex
    url, options = {
        "memory": (f"memory://{unique}/run", None),
        "file": (f"file://{tmp_path}/deep/run", None),
        "path": (f"{tmp_path}/deep/run", None),
        "dir": (f"dir://{unique}::file://{tmp_path}", None),
        "s3": (f"s3://bucket/{unique}/run/", None),
    }[request.param]
    if request.param == "s3":
        options = request.getfixturevalue("s3")
    if request.param == "dir":
        (tmp_path / unique).mkdir()
    return lambda **rules: RemoteCheckpoints(url, storage_options=options, **rules)


@pytest.mark.row(36)
def test_checkpoints_are_found_by_step_newest_and_best(make_store: Any) -> None:
    store = make_store()
    assert store.steps() == []
    assert store.best() is None
    fill(store, {8: 0.5, 100: 0.1, 20: None, 100_000_000: 0.7})
    assert store.steps() == [8, 20, 100, 100_000_000]
    assert store.best() == 100
    for which, step in ((None, 100_000_000), ("latest", 100_000_000), ("best", 100), (8, 8)):
        found, manifest = store.restore(which, like=make(step))
        assert tree.equal(found, make(step))
        assert manifest.step == step
    assert store.verify(20).metrics == {}
    assert store.read_manifest(100).metrics == {"loss": 0.1}
    with pytest.raises(NoCheckpointError, match="of step 9"):
        store.restore(9)
    with pytest.raises(CheckpointMismatchError):
        store.restore(8, like={"params": {}})


@pytest.mark.row(33)
def test_a_tree_without_tensors_has_no_payload(make_store: Any) -> None:
    make_store().save({"note": "hello"}, step=1)
    assert make_store().restore()[0] == {"note": "hello"}


@pytest.mark.row(36)
def test_checkpoints_that_no_rule_keeps_are_removed_completely(make_store: Any) -> None:
    store = make_store(keep_last=2)
    fill(store, {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.8})
    assert store.steps() == [2, 3, 4]
    assert len(store.objects().list()) == 3
    narrow = make_store(keep_last=1, keep_best=0)
    assert narrow.prune(dry_run=True) == [2, 3]
    assert store.steps() == [2, 3, 4]
    assert narrow.prune() == [2, 3]
    assert len(store.objects().list()) == 1
    assert make_store().prune() == []


@pytest.mark.row(33)
def test_a_step_saved_again_is_replaced_whatever_the_clock_says(
    make_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    store.save(make(1), step=5)
    monkeypatch.setattr(remote_attempts.time, "time_ns", lambda: 10**18)  # years earlier
    store.save(make(2), step=5)
    assert tree.equal(store.restore(5)[0], make(2))
    assert len(store.objects().list()) == 1


@pytest.mark.row(33)
def test_an_object_is_never_overwritten_if_the_store_can_prevent_it(make_store: Any) -> None:
    objects = make_store().objects()
    objects.upload(Path(__file__), "there/first")
    objects.put_new("there/new", b"some")
    objects.put_new("there/new", b"some")  # a lost answer and a second try of the network's own
    with pytest.raises(FileExistsError, match=r"writing .*there/new failed"):
        objects.put_new("there/new", b"other")
    assert objects.read("there/new") == b"some"


@pytest.mark.row(33)
def test_two_that_save_the_same_step_at_once_do_not_remove_each_other(
    make_store: Any, tmp_path: Path
) -> None:
    store = make_store(keep_last=1, keep_best=0)
    fill(store, {4: None})
    objects = store.objects()
    path = Checkpoints(tmp_path / "local").save(make(5), step=5)
    both = [remote_attempts.send(objects, path, None) for _ in range(2)]
    for attempt in both:  # each prunes as if it had been the last
        choosing.prune(objects, store.rules, just_saved=attempt)
    assert [(each.step, each.clock) for each in attempts(objects)] == [(5, both[1].clock)]
    assert tree.equal(store.restore()[0], make(5))


@pytest.mark.row(36)
def test_checkpoints_of_another_process_are_visible_at_once(s3: dict[str, Any]) -> None:
    url = f"s3://bucket/{uuid.uuid4().hex}"
    here = RemoteCheckpoints(url, storage_options=s3)
    there = RemoteCheckpoints(url, storage_options={**s3, "skip_instance_cache": True})
    for step in (1, 2, 3):
        there.save(make(step), step=step)
        assert here.steps() == list(range(1, step + 1))


@pytest.mark.row(36)
def test_only_the_files_of_wanted_leaves_are_downloaded(
    faulty: RemoteCheckpoints, plan: Plan
) -> None:
    fill(faulty, {1: None})
    plan.done = []
    assert list(faulty.restore(only="params.*")[0]) == ["params"]
    names = [place.rpartition("/")[2] for name, place in plan.done if name == "get_file"]
    assert names == ["params.safetensors"]
    assert tree.equal(faulty.restore(only=["params.*", "optimizer.*"])[0], make(1))


# -- order, leftovers -------------------------------------------------------------------------


@pytest.mark.row(33)
def test_the_manifest_comes_last_and_goes_first(faulty: RemoteCheckpoints, plan: Plan) -> None:
    fill(faulty, {1: None, 2: None})
    writes = ("put_file", "pipe_file", "rm_file", "rm")
    done = [(name, place.rpartition("/")[2]) for name, place in plan.done if name in writes]
    payload = [("put_file", "params.safetensors"), ("put_file", "optimizer.safetensors")]
    removed = next(place for name, place in done if name == "rm")
    assert [each for each in done if each[0] == "put_file"] == payload * 2
    assert done == [
        *payload,
        ("pipe_file", "manifest.json"),
        *payload,
        ("pipe_file", "manifest.json"),
        ("rm_file", "manifest.json"),
        ("rm", removed),
    ]
    assert removed.startswith("step-00000001.")
    paths = [place for name, place in plan.done if name in ("put_file", "pipe_file")]
    assert len(set(paths)) == len(paths)


def leave(store: RemoteCheckpoints, step: int, age: int) -> str:
    """Leave what an interrupted save leaves behind."""
    clock = remote_attempts.time.time_ns() - age
    name = Attempt(step, clock, "0123456789abcdef").name
    store.objects().put_new(f"{name}/params.safetensors", b"half of it")
    return name


@pytest.mark.row(33)
def test_leftovers_are_swept_once_they_are_old_or_their_step_is_saved(make_store: Any) -> None:
    store = make_store()
    store.objects().upload(Path(__file__), "notes.txt")
    fill(store, {5: None})
    fresh, old = leave(store, 6, DAY // 2), leave(store, 7, DAY + 10**12)
    replaced, racing = leave(store, 5, 10**12), leave(store, 5, -(10**12))
    store.objects().upload(Path(__file__), f"{old}.not-ours/file")
    store.objects().upload(Path(__file__), f"{old.replace('-', '-0')}/manifest.json")
    assert store.steps() == [5]
    assert store.prune() == []
    left = set(store.objects().list())
    assert {fresh, racing, "notes.txt", f"{old}.not-ours"} < left
    assert not left & {old, replaced}
    assert len(left) == 6
    assert tree.equal(store.restore()[0], make(5))


@pytest.mark.row(33)
def test_an_older_attempt_does_not_reappear_when_its_step_is_removed(
    faulty: RemoteCheckpoints, plan: Plan
) -> None:
    keeping = RemoteCheckpoints(faulty.url)
    keeping.save(make(1), step=1)
    first = attempts(keeping.objects())[0]
    moved = {name: keeping.objects().read(f"{first.name}/{name}") for name in sorted(first.sizes)}
    keeping.save(make(2), step=1)
    for name, data in moved.items():  # as if its removal had failed
        keeping.objects().put_new(f"{first.name}/{name}", data)
    fill(keeping, {3: None})
    for count in range(100):
        crash, _, _ = tried(plan, count, "crash", faulty.prune)
        if 1 in faulty.steps():
            assert tree.equal(keeping.restore(1)[0], make(2))
        if crash is None:
            break
    assert count > 5
    assert faulty.steps() == [3]


# -- damage -----------------------------------------------------------------------------------


def damage(store: RemoteCheckpoints, step: int, name: str, how: str) -> None:
    objects = store.objects()
    place = next(each.name for each in attempts(objects) if each.step == step)
    data = bytearray(objects.read(f"{place}/{name}"))
    data[-3] ^= 1
    objects.remove(f"{place}/{name}")
    if how != "missing":
        objects.put_new(f"{place}/{name}", bytes(data[:-1] if how == "short" else data))


@pytest.mark.row(38)
@pytest.mark.parametrize("how", ["flipped", "short", "missing"])
@pytest.mark.parametrize("name", ["params.safetensors", "manifest.json"])
def test_damage_is_skipped_with_a_warning(how: str, name: str) -> None:
    store = in_memory(keep_last=5)
    fill(store, {1: 0.3, 2: 0.2})
    damage(store, 2, name, how)
    if (name, how) == ("manifest.json", "missing"):
        assert store.steps() == [1]
        assert tree.equal(store.restore()[0], make(1))
        return
    with pytest.warns(CheckpointSkippedWarning, match=r"memory://.*/step-00000002"):
        assert tree.equal(store.restore()[0], make(1))
    with pytest.raises(CheckpointCorruptError) as caught, pytest.warns(CheckpointSkippedWarning):
        store.restore(2)
    assert "step-00000002" in str(caught.value)
    with pytest.raises(CheckpointCorruptError):
        store.verify(2)
    damage(store, 1, "params.safetensors", "flipped")
    with (
        pytest.raises(CheckpointCorruptError, match="every checkpoint in"),
        pytest.warns(CheckpointSkippedWarning),
    ):
        store.restore()


@pytest.mark.row(36)
def test_pruning_never_removes_the_last_complete_checkpoint() -> None:
    store = in_memory(keep_best=0)
    fill(store, {1: None, 2: None, 3: None})
    damage(store, 3, "params.safetensors", "missing")
    with pytest.warns(CheckpointSkippedWarning, match="params.safetensors: expected"):
        assert attrs.evolve(store, keep_last=1).prune() == [1]
    assert store.steps() == [2, 3]


@pytest.mark.row(38)
def test_a_checkpoint_removed_while_it_is_read_is_listed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = in_memory(keep_last=1, keep_best=0)
    fill(store, {1: None})
    download = ObjectStore.download

    def late(self: ObjectStore, name: str, target: Path) -> None:
        if "step-00000001" in name:
            fill(store, {2: None})  # another process, which removes the first
        download(self, name, target)

    monkeypatch.setattr(ObjectStore, "download", late)
    assert tree.equal(store.restore()[0], make(2))


# -- faults -----------------------------------------------------------------------------------


def tried(plan: Plan, number: int, how: str, act: Callable[[], Any]) -> tuple[Any, Any, bool]:
    """Let an operation fail: (the error or ``None``, what it returned, whether it failed)."""
    error = result = None
    plan.done, plan.fails_at, plan.how = [], number, how
    try:
        result = act()
    except (CheckpointWriteError, CheckpointReadError, Crash) as raised:
        error = raised
    plan.fails_at = None
    return error, result, len(plan.done) > number


def fresh(store: RemoteCheckpoints) -> RemoteCheckpoints:
    """A store of its own, with one checkpoint."""
    new = attrs.evolve(store, url=f"faulty://{uuid.uuid4().hex}/run")
    new.save(make(1), step=1)
    return new


@pytest.mark.row(38)
@pytest.mark.parametrize("how", ["before", "after", "torn", "silently torn"])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.filterwarnings("ignore::functrain.errors.CheckpointWriteWarning")
def test_every_operation_of_a_save_failing(
    faulty: RemoteCheckpoints, plan: Plan, how: str, step: int
) -> None:
    refused = 0
    for number in range(100):
        store = fresh(faulty)
        error, _, failed = tried(plan, number, how, partial(store.save, make(2), step=step))
        found, _ = store.restore()
        if error is None:
            assert tree.equal(found, make(2))
        else:
            refused += 1
            assert isinstance(error, CheckpointWriteError)
            assert store.url in str(error)
            assert how == "silently torn" or "the line is dead" in str(error)
            assert tree.equal(found, make(1)) or tree.equal(found, make(2))
        if not failed:
            break
    print(f"{how}: {number} operations of a save failed, {refused} saves were refused")
    assert error is None
    assert refused >= (2 if how == "silently torn" else 5)


@pytest.mark.row(33)
@pytest.mark.parametrize("step", [1, 2])
def test_a_crash_at_every_operation_of_a_save(
    faulty: RemoteCheckpoints, plan: Plan, step: int
) -> None:
    for number in range(100):
        store = fresh(faulty)
        crash, _, failed = tried(plan, number, "crash", partial(store.save, make(2), step=step))
        found, _ = store.restore()
        assert tree.equal(found, make(2)) or (crash and tree.equal(found, make(1)))
        store.save(make(3), step=step)
        assert tree.equal(store.restore()[0], make(3))
        assert store.steps() == [step]
        if not failed:
            break
    print(f"a save crashed at each of {number} operations")
    assert crash is None
    assert number > 10


@pytest.mark.row(38)
@pytest.mark.parametrize("how", ["before", "silently torn"])
@pytest.mark.parametrize("which", ["latest", "best", 2])
def test_a_failing_network_is_not_mistaken_for_damage(
    faulty: RemoteCheckpoints, plan: Plan, which: Any, how: str
) -> None:
    store = attrs.evolve(faulty, keep_last=None)
    fill(store, {1: 0.5, 2: 0.1})
    refused = 0
    for number in range(100):
        error, restored, failed = tried(plan, number, how, partial(store.restore, which))
        if error is None:
            assert tree.equal(restored[0], make(2))
        else:
            refused += 1
            assert isinstance(error, CheckpointReadError)
            assert store.url in str(error)
            assert isinstance(error.__cause__, OSError)
            assert how != "before" or isinstance(error.__cause__.__cause__, Refusal)
        if not failed:
            break
    print(f"{how}: {number} operations of a restore failed, {refused} were refused")
    assert error is None
    assert refused >= (2 if how == "silently torn" else 4)


@pytest.mark.row(38)
def test_a_failed_removal_is_a_warning_and_the_save_counts(
    faulty: RemoteCheckpoints, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(faulty, {1: None})
    monkeypatch.setattr(MemoryFileSystem, "rm_file", lambda *_: 1 / 0)
    with pytest.warns(CheckpointWriteWarning, match="ZeroDivisionError"):
        fill(faulty, {2: None})
    assert faulty.steps() == [1, 2]


@pytest.mark.row(33)
def test_without_conditional_writes_the_store_is_checked_first(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = MemoryFileSystem.pipe_file

    def unconditional(self: Any, path: str, value: bytes) -> None:
        plain(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", unconditional)
    store = in_memory()
    fill(store, {1: None})
    assert tree.equal(store.restore()[0], make(1))
    objects = store.objects()
    objects.put_new("a/b", b"some")
    with pytest.raises(FileExistsError):
        objects.put_new("a/b", b"other")
    assert objects.read("a/b") == b"some"


@pytest.mark.row(33)
def test_a_local_checkpoint_replaced_while_it_is_copied_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, local = in_memory(), Checkpoints(tmp_path)
    path = local.save(make(1), step=1)
    upload = ObjectStore.upload

    def late(self: ObjectStore, source: Path, name: str) -> None:
        upload(self, source, name)
        local.save(make(8), step=1)  # of the same lengths

    monkeypatch.setattr(ObjectStore, "upload", late)
    with pytest.raises(CheckpointWriteError, match="was replaced while it was copied"):
        store.upload(path)
    assert store.steps() == []


# -- what is given ----------------------------------------------------------------------------


def test_missing_packages_and_unknown_urls_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointReadError, match="nonsense"):
        RemoteCheckpoints("nonsense://somewhere").steps()
    with pytest.raises(CheckpointWriteError, match="nonsense"):
        RemoteCheckpoints("nonsense://somewhere").save({}, step=1)
    with pytest.raises(ConfigurationError, match=r"keep_last: expected.*got 0"):
        RemoteCheckpoints("memory://x", keep_last=0)
    with pytest.raises(ValueError, match="newest"):
        RemoteCheckpoints("memory://x").restore("newest")
    with pytest.raises(ValueError, match="count of updates"):
        RemoteCheckpoints("memory://x").save({}, step=-1)
    with pytest.raises(NoCheckpointError, match="there is no checkpoint in memory://nothing"):
        RemoteCheckpoints("memory://nothing").restore()


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"functrain\[remote\]"):
        RemoteCheckpoints("memory://x").steps()


def test_secrets_are_not_shown() -> None:
    store = RemoteCheckpoints("nonsense://ada:hidden@host/x", storage_options={"key": "hidden"})
    with pytest.raises(CheckpointReadError) as caught:
        store.steps()
    assert "hidden" not in repr(store) + str(caught.value)


# -- fetching ---------------------------------------------------------------------------------


def sent(tmp_path: Path, store: RemoteCheckpoints, step: int, log: bytes) -> None:
    source = Checkpoints(tmp_path / "source")
    path = source.save(make(step), step=step)
    (tmp_path / "source" / "metrics.jsonl").write_bytes(log)
    store.upload(path, tmp_path / "source" / "metrics.jsonl")


@pytest.mark.row(33)
def test_a_checkpoint_and_its_log_are_fetched(make_store: Any, tmp_path: Path) -> None:
    store, run = make_store(), tmp_path / "run-here"
    with pytest.raises(NoCheckpointError):
        store.fetch(run)
    sent(tmp_path, store, 1, b"1\n")
    sent(tmp_path, store, 2, b"1\n2\n")
    assert store.fetch(run) == run / "step-00000002"
    assert tree.equal(Checkpoints(run).restore()[0], make(2))
    assert (run / "metrics.jsonl").read_bytes() == b"1\n2\n"
    assert sorted(each.name for each in run.iterdir()) == [
        ".lock",
        "FORMAT",
        "metrics.jsonl",
        "step-00000002",
    ]
    Checkpoints(run).save(make(9), step=9)
    assert store.fetch(run) == run / "step-00000009"
    assert Checkpoints(run).steps() == [2, 9]


@pytest.mark.row(33)
def test_newer_local_checkpoints_stay_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    store, run = in_memory(), tmp_path / "run"
    sent(tmp_path, store, 3, b"1\n2\n3\n")
    local = Checkpoints(run)
    local.save(make(1), step=1)
    path = local.save(make(3), step=3)
    (run / "metrics.jsonl").write_bytes(b"1\n2\n3\n4\n")
    (path / "params.safetensors").write_bytes(b"")
    assert store.fetch(run) == path
    assert tree.equal(local.restore()[0], make(3))
    assert (run / "metrics.jsonl").read_bytes() == b"1\n2\n3\n4\n"


@pytest.mark.row(33)
def test_the_log_of_another_run_is_not_replaced(tmp_path: Path) -> None:
    store, run = in_memory(), tmp_path / "run"
    sent(tmp_path, store, 3, b"1\n2\n3\n")
    run.mkdir()
    (run / "metrics.jsonl").write_bytes(b"1\n7\n")
    with pytest.raises(LogError, match="empty directory"):
        store.fetch(run)
    assert (run / "metrics.jsonl").read_bytes() == b"1\n7\n"
    assert Checkpoints(run).steps() == []


@pytest.mark.row(38)
@pytest.mark.parametrize("name", ["params.safetensors", "log"])
def test_damaged_remote_checkpoints_are_not_fetched(tmp_path: Path, name: str) -> None:
    store, run = in_memory(), tmp_path / "run"
    sent(tmp_path, store, 1, b"first\n")
    sent(tmp_path, store, 2, b"first\nsecond\n")
    last = attempts(store.objects())[0]
    logs = [each for each in last.sizes if each.startswith("metrics.")]
    damage(store, 2, logs[0] if name == "log" else name, "flipped")
    with pytest.warns(CheckpointSkippedWarning):
        assert store.fetch(run) == run / "step-00000001"
    assert (run / "metrics.jsonl").read_bytes() == b"first\n"
    assert Checkpoints(run).steps() == [1]


@pytest.mark.row(38)
@pytest.mark.parametrize("how", ["before", "silently torn", "crash"])
def test_every_operation_of_a_fetch_failing(
    faulty: RemoteCheckpoints, plan: Plan, tmp_path: Path, how: str
) -> None:
    sent(tmp_path, faulty, 4, b"1\n")
    for number in range(100):
        run = tmp_path / f"run-{number}"
        error, _, failed = tried(plan, number, how, partial(faulty.fetch, run))
        if error is not None:
            assert isinstance(error, CheckpointReadError | Crash)
            assert Checkpoints(run).steps() == []
            faulty.fetch(run)
        assert tree.equal(Checkpoints(run).restore()[0], make(4))
        if not failed:
            break
    assert error is None
    assert number > 4
