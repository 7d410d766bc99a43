"""The states in which a crash may leave a directory, given the operations on it.

The model assumes more than any one file system does. Of the names changed since the last sync of
their directory, any subset is on the disk. Of the bytes written since the last sync of their file,
any sectors are; the others hold the synced content or, if there was none, zeros or garbage, and
the length may have any value in between. A rename is durable or not, never half. Synced operations
are durable.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import attrs
from crashes.operations import Change, Data, Log, Mark, Size, Sync

SECTOR = 512
_EXHAUSTIVE = 6  # up to so many names not synced, all subsets are taken
State = dict[str, bytes | None]  # contents by relative path; directories have none
Fate = str  # what becomes of bytes that were not synced
FATES = ("all", "none", "zeros", "sectors", "rubbish", "some", "cut")


@attrs.define
class Disk:
    """The durable content of the disk, and the changes that may or may not be durable."""

    directories: dict[int, dict[str, int]]
    files: dict[int, bytes]
    names: list[Change] = attrs.field(factory=list)
    bytes: dict[int, list[Data | Size]] = attrs.field(factory=dict)

    def do(self, operation: Change | Data | Size | Sync) -> None:
        """Take in one operation more."""
        match operation:
            case Change():
                self.names.append(operation)
            case Data(inode) | Size(inode):
                self.bytes.setdefault(inode, []).append(operation)
            case Sync(inode):
                for change in [each for each in self.names if touches(each, inode)]:
                    apply(self.directories, change)
                    self.names.remove(change)
                if inode in self.bytes:
                    self.files[inode] = written(self.files.get(inode, b""), self.bytes.pop(inode))


@attrs.frozen
class Point:
    """A moment of a crash: the disk then, and what the writer had said."""

    disk: Disk
    said: tuple[Mark, ...]


def points(log: Log) -> Iterator[Point]:
    """The moments after each operation."""
    disk = Disk({key: dict(names) for key, names in log.directories.items()}, dict(log.files))
    said: list[Mark] = []
    for operation in log.operations:
        if isinstance(operation, Mark):
            said.append(operation)
        else:
            disk.do(operation)
        yield Point(disk, tuple(said))


def final(log: Log) -> State:
    """The directory when all is on the disk."""
    for point in points(log):
        disk = point.disk
    return built(disk, disk.names, dict.fromkeys(disk.bytes, "all"), random.Random(0))


def states(disk: Disk, chance: random.Random, tries: int) -> Iterator[State]:
    """Yield some states after a crash: always the simplest ones, then random ones.

    Args:
        disk: at the moment of the crash; must not change while this is drawn from.
        chance: random numbers for everything that the disk does not decide.
        tries: number of states to draw; some may repeat.
    """
    subsets = _subsets(disk.names, chance)
    for number in range(tries):
        names = next(subsets)
        one = chance.choice(FATES) if number >= len(FATES) else FATES[number]
        mixed = chance.random() < 0.5 and number >= len(FATES)
        fates = {inode: chance.choice(FATES) if mixed else one for inode in disk.bytes}
        yield built(disk, names, fates, chance)


def _subsets(names: list[Change], chance: random.Random) -> Iterator[list[Change]]:
    yield list(names)
    yield []
    if len(names) <= _EXHAUSTIVE:
        masks = list(range(2 ** len(names)))
        chance.shuffle(masks)
        for mask in masks:
            yield [change for index, change in enumerate(names) if mask >> index & 1]
    while True:
        likely = chance.choice((0.15, 0.5, 0.85))
        cut = chance.randint(0, len(names)) if chance.random() < 0.3 else len(names)
        yield [
            change
            for index, change in enumerate(names)
            if index < cut and (cut < len(names) or chance.random() < likely)
        ]


def touches(change: Change, directory: int) -> bool:
    return any(entry[0] == directory for entry in change.entries)


def apply(directories: dict[int, dict[str, int]], change: Change) -> None:
    for directory, name, inode in change.entries:
        names = directories.setdefault(directory, {})
        if inode is None:
            names.pop(name, None)
        else:
            names[name] = inode


def written(content: bytes, operations: list[Data | Size]) -> bytes:
    """A file after all of the operations."""
    result = bytearray(content)
    for operation in operations:
        if isinstance(operation, Data):
            result += bytes(max(0, operation.offset - len(result)))
            result[operation.offset : operation.offset + len(operation.data)] = operation.data
        elif operation.grows or operation.length > len(result):
            result += bytes(max(0, operation.length - len(result)))
        else:
            del result[operation.length :]
    return bytes(result)


def fated(old: bytes, operations: list[Data | Size], fate: Fate, chance: random.Random) -> bytes:
    """A file of which some bytes were not synced."""
    new = written(old, operations)
    # Truncated bytes are gone, even if new bytes are written there.
    cuts = [each.length for each in operations if isinstance(each, Size) and not each.grows]
    held = old[: min([len(old), *cuts])]
    match fate:
        case "all":
            return new
        case "none":
            return old
        case "some":
            return written(old, [each for each in operations if chance.random() < 0.5])
        case "cut":
            return new[: max(len(held), chance.randrange(len(new) + 1) // SECTOR * SECTOR)]
        case "zeros":
            return held + bytes(len(new) - len(held))
    result = bytearray(new)
    choices = ("new", "old", "zeros", "rubbish") if fate == "rubbish" else ("new", "old")
    for first, last in _runs(len(new), chance):
        lost = result[first : min(last, len(new))]
        match chance.choice(choices):
            case "new":
                continue
            case "rubbish":
                lost = bytearray(chance.randbytes(len(lost)))
            case _:
                lost = bytearray(len(lost))
        synced = held[first : first + len(lost)]
        lost[: len(synced)] = synced  # rubbish is only where nothing was
        result[first : first + len(lost)] = lost
    return bytes(result)


def _runs(length: int, chance: random.Random) -> Iterator[tuple[int, int]]:
    """A file's sectors, where there are many, in runs of a common fate."""
    sectors = -(-length // SECTOR)
    most = max(1, sectors // 16)
    start = 0
    while start < sectors:
        stop = min(sectors, start + chance.randint(1, most))
        yield start * SECTOR, stop * SECTOR
        start = stop


def built(disk: Disk, names: list[Change], fates: dict[int, Fate], chance: random.Random) -> State:
    """The directory after a crash of which everything is decided."""
    directories = {key: dict(each) for key, each in disk.directories.items()}
    for change in names:
        apply(directories, change)
    files = set(disk.files) | set(disk.bytes)
    found: State = {}

    def walk(directory: int, prefix: str) -> None:
        for name, inode in directories.get(directory, {}).items():
            if inode in files:
                old, pending = disk.files.get(inode, b""), disk.bytes.get(inode, [])
                found[prefix + name] = fated(old, pending, fates.get(inode, "all"), chance)
            else:
                found[prefix + name] = None
                walk(inode, prefix + name + "/")

    walk(0, "")
    return found


def digest(state: State) -> bytes:
    """Return a digest that distinguishes states."""
    total = blake2b(digest_size=16)
    for name in sorted(state):
        content = state[name]
        total.update(name.encode() + (b"/" if content is None else b"\0%d\0" % len(content)))
        total.update(content or b"")
    return total.digest()


def materialise(state: State, place: Path) -> None:
    """Make the directory that a state describes; ``place`` must not exist or be empty."""
    place.mkdir(exist_ok=True)
    for name, content in state.items():  # a directory comes before what is in it
        if content is None:
            (place / name).mkdir()
        else:
            (place / name).write_bytes(content)


def on_disk(place: Path) -> State:
    """The state that a directory is in."""
    return {
        str(each.relative_to(place)): None if each.is_dir() else each.read_bytes()
        for each in place.rglob("*")
    }
