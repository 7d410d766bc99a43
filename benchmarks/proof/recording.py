"""Record by strace how a training process changes the files of a directory.

Unlike a recorder within Python (`tests/support/crashes/log.py`), this one sees what libraries in
C++ and Rust write.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from crashes.operations import Change, Data, Log, Size, Sync  # noqa: E402
from crashes.states import final, on_disk  # noqa: E402

CALLS = (
    "openat,creat,lseek,write,writev,pwrite64,ftruncate,fallocate,fsync,fdatasync,"
    "mkdir,mkdirat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir"
)
_LINE = re.compile(r"\d+ +(\w+)\((.*)\) = (-?\d+)")
_TEXT = re.compile(r'"((?:\\x\w\w)*)"')
_PLACE = re.compile(r'(?:(\w+)<([^>]*)>, )?"((?:\\x\w\w)*)"')
_OPEN = re.compile(r"(\w+)<([^>]*)>")


def recorded(command: list[str], directory: Path) -> Log:
    """Run a command that writes to a directory, and return what it did there.

    Raises:
        RuntimeError: the record does not lead to the files that the command left.
    """
    recorder = _Recorder(directory.resolve())
    trace = directory.with_name(f"{directory.name}.trace")
    options = ["-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={CALLS}", "-o", str(trace)]
    subprocess.run(["strace", *options, *command], cwd=ROOT, capture_output=True, check=False)
    for name, arguments, result in _calls(trace.read_text()):
        recorder.take(name, arguments, result)
    trace.unlink()
    if final(recorder.log) != on_disk(directory):
        raise RuntimeError(f"{directory} was changed in ways that were not recorded")
    return recorder.log


def _calls(trace: str) -> Iterator[tuple[str, str, int]]:
    """Yield the calls that succeeded, each when it returned."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>")
            continue
        if " resumed>" in line:
            line = begun.pop(thread) + line.partition(" resumed>")[2]
        if (found := _LINE.match(line)) and int(found[3]) >= 0:
            yield found[1], found[2], int(found[3])


@attrs.define
class _Recorder:
    """Follows paths and descriptors; inode 0 is the directory, and -1 any outside of it."""

    root: Path
    log: Log = attrs.field(factory=Log)
    inodes: dict[str, int] = attrs.field(factory=dict)
    lengths: dict[int, int] = attrs.field(factory=dict)
    positions: dict[str, int] = attrs.field(factory=dict)
    appending: set[str] = attrs.field(factory=set)
    count: int = 0

    def __attrs_post_init__(self) -> None:
        self.inodes[str(self.root)] = 0
        for path in sorted(self.root.rglob("*")):
            inode, (parent, name) = self._new(str(path)), self._entry(str(path))
            self.log.directories.setdefault(parent, {})[name] = inode
            if path.is_file():
                self.log.files[inode] = path.read_bytes()
                self.lengths[inode] = path.stat().st_size
            else:
                self.log.directories.setdefault(inode, {})

    def take(self, name: str, arguments: str, result: int) -> None:
        """Note one call that succeeded."""
        match name.removesuffix("2").removesuffix("at"):
            case "open" | "creat":
                self._open(_paths(arguments)[0], arguments, str(result))
            case "mkdir":
                self._enter(_paths(arguments)[0])
            case "rename":
                self._rename(*_paths(arguments))
            case "link":
                old, new = _paths(arguments)
                self.inodes[new] = self.inodes[old] if old in self.inodes else self._new(old)
                self._change((*self._entry(new), self.inodes[new]))
            case "unlink" | "rmdir":
                (path,) = _paths(arguments)
                self._change((*self._entry(path), None))
                self.inodes.pop(path, None)
            case call:
                self._at_descriptor(call, arguments, result)

    def _at_descriptor(self, call: str, arguments: str, result: int) -> None:
        descriptor, path = _open(arguments)
        inode = self.inodes.get(path)
        if inode is None:
            return
        numbers = [int(each) for each in re.findall(r", (\d+)(?=,|$)", arguments)]
        match call:
            case "lseek":
                self.positions[descriptor] = result
            case "write" | "writev":
                at = self.positions.get(descriptor, 0)
                at = self.lengths.get(inode, 0) if descriptor in self.appending else at
                self._write(inode, at, arguments, result)
                self.positions[descriptor] = at + result
            case "pwrite64":
                self._write(inode, numbers[-1], arguments, result)
            case "ftruncate":
                self._resize(Size(inode, numbers[-1]))
            case "fallocate":
                self._resize(Size(inode, numbers[-2] + numbers[-1], grows=True))
            case "fsync" | "fdatasync":
                self.log.operations.append(Sync(inode))

    def _open(self, path: str, arguments: str, descriptor: str) -> None:
        if "O_CREAT" in arguments and path not in self.inodes:
            self.log.operations.append(Size(self._enter(path), 0))
        inode = self.inodes.get(path, 0)
        if inode and "O_TRUNC" in arguments and self.lengths.get(inode):
            self._resize(Size(inode, 0))
        self.positions[descriptor] = 0
        (self.appending.add if "O_APPEND" in arguments else self.appending.discard)(descriptor)

    def _enter(self, path: str) -> int:
        inode = self._new(path)
        self._change((*self._entry(path), inode))
        return inode

    def _rename(self, old: str, new: str) -> None:
        if old not in self.inodes:
            return
        inode = self.inodes[old]
        self._change((*self._entry(old), None), (*self._entry(new), inode))
        for path in [one for one in self.inodes if one == old or one.startswith(f"{old}/")]:
            self.inodes[new + path.removeprefix(old)] = self.inodes.pop(path)

    def _write(self, inode: int, offset: int, arguments: str, count: int) -> None:
        data = b"".join(_bytes(text) for text in _TEXT.findall(arguments))[:count]
        self.log.operations.append(Data(inode, offset, data))
        self.lengths[inode] = max(self.lengths.get(inode, 0), offset + count)

    def _resize(self, size: Size) -> None:
        self.log.operations.append(size)
        old = self.lengths.get(size.inode, 0)
        self.lengths[size.inode] = max(old, size.length) if size.grows else size.length

    def _change(self, *entries: tuple[int, str, int | None]) -> None:
        if inside := tuple(entry for entry in entries if entry[0] >= 0):
            self.log.operations.append(Change(inside))

    def _new(self, path: str) -> int:
        self.count += 1
        self.inodes[path] = self.count
        return self.count

    def _entry(self, path: str) -> tuple[int, str]:
        folder, name = os.path.split(path)
        inside = folder == str(self.root) or folder.startswith(f"{self.root}/")
        return (self.inodes[folder] if inside else -1), name


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _open(arguments: str) -> tuple[str, str]:
    found = _OPEN.match(arguments)
    return (found[1], _bytes(found[2]).decode()) if found else ("", "")


def _paths(arguments: str) -> list[str]:
    """Return the paths that a call names; those relative to a directory made absolute."""
    return [
        os.path.normpath(os.path.join(_bytes(folder or "").decode(), _bytes(name).decode()))
        for _, folder, name in _PLACE.findall(arguments)
    ]
