"""ObjectStore under a URL: the few operations a remote store needs, each error with its place."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from functrain.errors import MissingExtraError
from functrain.errors.optional import require

# What file systems without error numbers mean.
_NUMBERS: tuple[tuple[type[OSError], int], ...] = (
    (FileNotFoundError, errno.ENOENT),
    (FileExistsError, errno.EEXIST),
    (PermissionError, errno.EACCES),
    (TimeoutError, errno.ETIMEDOUT),
)


def without_secrets(url: str) -> str:
    """A URL as it may be shown: user names and passwords in it are masked.

    Example:
        >>> without_secrets("sftp://ada:secret@host/runs")
        'sftp://***@host/runs'
    """
    return re.sub(r"://[^/@]*@", "://***@", url)


@attrs.frozen(eq=False)
class ObjectStore:
    """The objects under a URL. Every error is an :class:`OSError` that names operation and URL.

    Attributes:
        files: the fsspec file system.
        root: what the URL is called there.
        url: for messages.
    """

    files: Any = attrs.field(repr=False)
    root: str
    url: str

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> ObjectStore:
        """Find the file system of a URL; whether it can be reached shows when it is used.

        Raises:
            MissingExtraError: fsspec, or what it needs for this kind of URL, is not installed.
            OSError: fsspec does not know this kind of URL.
        """
        core = require("fsspec.core", "remote")
        with _placed("opening", without_secrets(url)):
            files, root = core.url_to_fs(url, **options)
        return cls(files, root.rstrip("/"), without_secrets(url.rstrip("/")))

    def list(self, name: str = "") -> dict[str, int | None]:
        """What is directly under a name, as it is now: sizes in bytes, ``None`` for directories."""
        at = self._at(name)
        try:
            with self._doing("listing", name):
                self.files.invalidate_cache()
                found = self.files.ls(at, detail=True)
        except FileNotFoundError:
            return {}
        entries = {entry["name"].strip("/"): entry for entry in found}
        entries.pop(at.strip("/"), None)  # a mark that some object stores keep for a directory
        return {
            path.rpartition("/")[2]: None if entry["type"] == "directory" else entry["size"]
            for path, entry in entries.items()
        }

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        with self._doing("reading", name):
            return bytes(self.files.cat_file(self._at(name)))

    def download(self, name: str, target: Path) -> None:
        """Copy an object into a local file."""
        with self._doing("downloading", name):
            self.files.get_file(self._at(name), str(target))

    def upload(self, source: Path, name: str) -> None:
        """Copy a local file into an object; directories are made where the store has such."""
        with self._doing("uploading", name):
            self._in_directory(self._at(name), lambda at: self.files.put_file(str(source), at))

    def put_new(self, name: str, data: bytes) -> None:
        """Write an object that must not be there yet.

        That is one operation where the store can do it, else looking first and then writing. An
        error may be a lost answer, or that to a second try of the network's own, so before it is
        raised the object is read: if it has these bytes all is well.
        """
        try:
            with self._doing("writing", name):
                self._in_directory(self._at(name), lambda at: self._create(at, data))
        except OSError as error:
            try:
                arrived = self.read(name) == data
            except OSError as second:
                error.add_note(f"whether it arrived could not be told: {second}")
                raise error from second
            if not arrived:
                raise

    def remove(self, name: str) -> None:
        """Remove an object; that it is gone already is no error."""
        with contextlib.suppress(FileNotFoundError), self._doing("removing", name):
            self.files.rm_file(self._at(name))

    def remove_all(self, name: str) -> None:
        """Remove all that is under a name."""
        with contextlib.suppress(FileNotFoundError), self._doing("removing", name):
            self.files.rm(self._at(name), recursive=True)

    def _in_directory(self, at: str, write: Callable[[str], object]) -> None:
        try:
            write(at)
        except FileNotFoundError:
            self.files.makedirs(at.rpartition("/")[0], exist_ok=True)
            write(at)

    def _create(self, at: str, data: bytes) -> None:
        try:
            self.files.pipe_file(at, data, mode="create")
        except (TypeError, NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            self.files.invalidate_cache()
            if self.files.exists(at):
                raise FileExistsError(errno.EEXIST, "it exists") from error
            self.files.pipe_file(at, data)

    def _at(self, name: str) -> str:
        return "/".join(part for part in (self.root, name) if part)

    def _doing(self, operation: str, name: str) -> contextlib.AbstractContextManager[None]:
        return _placed(operation, f"{self.url}/{name}" if name else self.url)


@contextlib.contextmanager
def _placed(operation: str, url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as missing:
        raise MissingExtraError(f"{operation} {url} needs another package: {missing}") from missing
    except Exception as cause:  # not hidden: each kind of store has errors of its own
        number = getattr(cause, "errno", None)
        known = (code for kind, code in _NUMBERS if isinstance(cause, kind))
        code = number if isinstance(number, int) and number > 0 else next(known, errno.EIO)
        reason = getattr(cause, "strerror", None) or cause
        text = f"{operation} {url} failed: {type(cause).__name__}: {reason}"
        raise OSError(code, text) from cause
