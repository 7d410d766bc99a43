"""Upload checkpoints to a remote store atomically, and download them.

Each attempt to upload a step has its own directory, ``step-00000120.CLOCK.TOKEN``, so no object is
ever overwritten. The payload is uploaded first and its size checked; the manifest is uploaded last
and makes the checkpoint exist. Removal is in the opposite order. Of several attempts for one step,
the one with the highest clock counts.

``CLOCK`` is nanoseconds since 1970, or one more than the highest clock of an earlier attempt for
the step if clocks disagree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
from xxhash import xxh3_128_hexdigest

from functrain.checkpoint.format.manifest import MANIFEST, Manifest, parse
from functrain.checkpoint.manifest_file import manifest_errors, read_manifest
from functrain.checkpoint.remote.object_store import ObjectStore
from functrain.checkpoint.run_directory import step_name
from functrain.errors import CheckpointCorruptError, NoCheckpointError

_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,17})\.([0-9a-f]{16})\.([0-9a-f]{16})")
_LOG = re.compile(r"metrics\.([0-9a-f]{32})\.jsonl")
_LARGEST_MANIFEST = 1 << 28
_DAY = 24 * 3600 * 10**9


@attrs.frozen(order=True)
class Attempt:
    """One attempt to upload a step, with the sizes of its objects; later ones compare greater."""

    step: int
    clock: int
    token: str
    sizes: Mapping[str, int] = attrs.field(factory=dict, order=False, eq=False)

    @property
    def name(self) -> str:
        return f"{step_name(self.step)}.{self.clock:016x}.{self.token}"

    @property
    def committed(self) -> bool:
        """Whether the attempt has become a checkpoint."""
        return MANIFEST in self.sizes

    @property
    def old(self) -> bool:
        """Whether it began more than a day ago, so that no process can still be uploading it."""
        return time.time_ns() - self.clock > _DAY

    def with_sizes(self, objects: ObjectStore) -> Attempt:
        """Return the attempt with the present sizes of its objects."""
        sizes = objects.list(self.name).items()
        return attrs.evolve(self, sizes={name: n for name, n in sizes if n is not None})


def attempts(objects: ObjectStore, step: int | None = None) -> list[Attempt]:
    """Return all attempts in a store, the latest first, ignoring objects with other names."""
    return [each.with_sizes(objects) for each in sorted(_list_names(objects, step), reverse=True)]


def _list_names(objects: ObjectStore, step: int | None) -> Iterator[Attempt]:
    for match in filter(None, map(_NAME.fullmatch, objects.list())):
        if step in (None, int(match[1])):
            yield Attempt(int(match[1]), int(match[2], 16), match[3])


def send(objects: ObjectStore, place: Path, log: Path | None) -> Attempt:
    """Upload a local checkpoint; it exists in the store when this returns.

    If this fails, at most objects without a manifest remain.
    """
    sealed = (place / MANIFEST).read_bytes()
    manifest = read_manifest(place)
    attempt = _new_attempt(objects, manifest.step or 0)
    expected = {file.name: file.length for file in manifest.files}
    for name in expected:
        objects.upload(place / name, f"{attempt.name}/{name}")
    if log is not None:
        rows = log.read_bytes()
        name = f"metrics.{xxh3_128_hexdigest(rows)}.jsonl"
        objects.put_new(f"{attempt.name}/{name}", rows)
        expected[name] = len(rows)
    _check_arrived(objects, attempt, expected)
    # Another process may have replaced the checkpoint; its manifest would differ.
    if (place / MANIFEST).read_bytes() != sealed:
        raise OSError(errno.EAGAIN, f"{place} was replaced while it was copied")
    objects.put_new(f"{attempt.name}/{MANIFEST}", sealed)
    _check_arrived(objects, attempt, {**expected, MANIFEST: len(sealed)})
    return attempt


def _new_attempt(objects: ObjectStore, step: int) -> Attempt:
    clocks = (earlier.clock + 1 for earlier in _list_names(objects, step))
    attempt = Attempt(step, max([time.time_ns(), *clocks]), secrets.token_hex(8))
    if not _NAME.fullmatch(attempt.name):
        raise OSError(errno.EOVERFLOW, f"{attempt.name} is not a valid name of an attempt")
    return attempt


def _check_arrived(objects: ObjectStore, attempt: Attempt, expected: Mapping[str, int]) -> None:
    found = attempt.with_sizes(objects).sizes
    for name, length in expected.items():
        if found.get(name) != length:
            raise OSError(
                errno.EIO,
                f"{objects.url}/{attempt.name}/{name}: expected {length} bytes after uploading, "
                f"got {found.get(name, 'no such object')}",
            )


def receive_manifest(
    objects: ObjectStore, attempt: Attempt, target: Path | None = None
) -> Manifest:
    """Download the manifest of an attempt, into a directory if one is given."""
    if attempt.sizes[MANIFEST] > _LARGEST_MANIFEST:
        raise CheckpointCorruptError(f"its manifest is too long: {attempt.sizes[MANIFEST]:,} bytes")
    with _telling_damage(objects, attempt, MANIFEST):
        data = objects.read(f"{attempt.name}/{MANIFEST}")
    with manifest_errors(Path(attempt.name)):
        manifest = parse(data)
    if manifest.step != attempt.step:
        raise CheckpointCorruptError(f"it holds the checkpoint of step {manifest.step}")
    for file in manifest.files:
        if attempt.sizes.get(file.name) != file.length:
            raise CheckpointCorruptError(
                f"{file.name}: expected {file.length} bytes, got "
                f"{attempt.sizes.get(file.name, 'no such file')}"
            )
    if target is not None:
        (target / MANIFEST).write_bytes(data)
    return manifest


def receive(
    objects: ObjectStore, attempt: Attempt, target: Path, wants: Callable[[str], bool] | None = None
) -> Manifest:
    """Download an attempt into an empty directory, as an ordinary checkpoint.

    Files without leaves that ``wants`` accepts are skipped.
    """
    manifest = receive_manifest(objects, attempt, target)
    wanted = {leaf.file for leaf in manifest.leaves if wants is None or wants(leaf.path)}
    for file in manifest.files:
        if wants is None or file.name in wanted:
            url = f"{attempt.name}/{file.name}"
            with _telling_damage(objects, attempt, file.name):
                objects.download(url, target / file.name)
            size = os.path.getsize(target / file.name)
            if size != file.length:
                found = f"{size} of its {file.length} bytes"
                raise OSError(errno.EIO, f"downloading {objects.url}/{url} gave {found}")
    return manifest


def receive_log(objects: ObjectStore, attempt: Attempt) -> bytes | None:
    """Download the log of an attempt, if it has one."""
    match = next(filter(None, map(_LOG.fullmatch, attempt.sizes)), None)
    if match is None:
        return None
    with _telling_damage(objects, attempt, match[0]):
        rows = objects.read(f"{attempt.name}/{match[0]}")
    if xxh3_128_hexdigest(rows) != match[1]:
        raise CheckpointCorruptError(f"{match[0]} is damaged: its bytes have another digest")
    return rows


@contextlib.contextmanager
def _telling_damage(objects: ObjectStore, attempt: Attempt, name: str) -> Iterator[None]:
    """Take a missing object for damage, unless the manifest is gone: then it was removed."""
    try:
        yield
    except FileNotFoundError as error:
        if name != MANIFEST and attempt.with_sizes(objects).committed:
            raise CheckpointCorruptError(f"{name} is missing") from error
        where = f"{objects.url}/{attempt.name}"
        raise NoCheckpointError(errno.ENOENT, f"{where} was removed while it was read") from error


def discard(objects: ObjectStore, attempt: Attempt) -> None:
    """Remove a checkpoint: first the manifest, which ends it, then the rest."""
    objects.remove(f"{attempt.name}/{MANIFEST}")
    objects.remove_all(attempt.name)


def discard_leftover(objects: ObjectStore, attempt: Attempt) -> None:
    """Remove a failed attempt, unless it has its manifest by now."""
    if not attempt.with_sizes(objects).committed:
        objects.remove_all(attempt.name)
