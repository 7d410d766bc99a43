"""Operations on the objects under a URL, with errors that name operation and URL."""

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

# Error numbers for file systems that do not set one.
_NUMBERS: tuple[tuple[type[OSError], int], ...] = (
    (FileNotFoundError, errno.ENOENT),
    (FileExistsError, errno.EEXIST),
    (PermissionError, errno.EACCES),
    (TimeoutError, errno.ETIMEDOUT),
)


def without_secrets(url: str) -> str:
    """Mask user names and passwords in a URL, so that it may be shown.

    Example:
        >>> without_secrets("sftp://ada:secret@host/runs")
        'sftp://***@host/runs'
    """
    return re.sub(r"://[^/@]*@", "://***@", url)


@attrs.frozen(eq=False)
class ObjectStore:
    """The objects under a URL. Every error is an :class:`OSError` that names operation and URL."""

    files: Any = attrs.field(repr=False)
    root: str
    url: str

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any]) -> ObjectStore:
        """Find the file system of a URL, without connecting to it."""
        core = require("fsspec.core", "remote")
        with _translated("opening", without_secrets(url)):
            files, root = core.url_to_fs(url, **options)
        return cls(files, root.rstrip("/"), without_secrets(url.rstrip("/")))

    def list(self, name: str = "") -> dict[str, int | None]:
        """List the objects directly under a name with their sizes, ``None`` for directories."""
        at = self._at(name)
        try:
            with self._doing("listing", name):
                self.files.invalidate_cache()
                found = self.files.ls(at, detail=True)
        except FileNotFoundError:
            return {}
        entries = {entry["name"].strip("/"): entry for entry in found}
        entries.pop(at.strip("/"), None)  # some object stores keep an empty object for a directory
        return {
            path.rpartition("/")[2]: None if entry["type"] == "directory" else entry["size"]
            for path, entry in entries.items()
        }

    def read(self, name: str) -> bytes:
        with self._doing("reading", name):
            return bytes(self.files.cat_file(self._at(name)))

    def download(self, name: str, target: Path) -> None:
        with self._doing("downloading", name):
            self.files.get_file(self._at(name), str(target))

    def upload(self, source: Path, name: str) -> None:
        """Upload a local file, creating directories if the store has any."""
        with self._doing("uploading", name):
            self._in_directory(self._at(name), lambda at: self.files.put_file(str(source), at))

    def put_new(self, name: str, data: bytes) -> None:
        """Create an object that must not exist yet.

        This is one atomic operation if the store supports it, otherwise a check and a write. After
        an error the object is read back: if it has these bytes, only the response was lost, or the
        network library retried a write that had succeeded.
        """
        try:
            with self._doing("writing", name):
                self._in_directory(self._at(name), lambda at: self._create(at, data))
        except OSError as error:
            try:
                arrived = self.read(name) == data
            except OSError as second:
                error.add_note(f"could not check whether the upload succeeded: {second}")
                raise error from second
            if not arrived:
                raise

    def remove(self, name: str) -> None:
        """Remove an object; a missing one is no error."""
        with contextlib.suppress(FileNotFoundError), self._doing("removing", name):
            self.files.rm_file(self._at(name))

    def remove_all(self, name: str) -> None:
        """Remove everything under a name."""
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
        return _translated(operation, f"{self.url}/{name}" if name else self.url)


@contextlib.contextmanager
def _translated(operation: str, url: str) -> Iterator[None]:
    try:
        yield
    except ImportError as missing:
        raise MissingExtraError(f"{operation} {url} needs another package: {missing}") from missing
    except Exception as cause:  # not hidden: each kind of store raises its own errors
        number = getattr(cause, "errno", None)
        known = (code for kind, code in _NUMBERS if isinstance(cause, kind))
        code = number if isinstance(number, int) and number > 0 else next(known, errno.EIO)
        reason = getattr(cause, "strerror", None) or cause
        text = f"{operation} {url} failed: {type(cause).__name__}: {reason}"
        raise OSError(code, text) from cause
