"""Where the files that a configuration includes are looked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

import functrain
from functrain.config.documents import Document, document
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

SUFFIX = ".yaml"
_PACKAGE = Path(functrain.__file__).parent


@attrs.frozen
class Folders:
    """Folders in the order in which they are searched.

    A file ``optimizer/adamw.yaml`` in one of them is the option ``adamw`` of the group
    ``optimizer``.

    Example:
        >>> Folders.beside(None).options("schedule")
        ['constant', 'cosine', 'linear', 'one_cycle', 'plateau', 'warmup_cosine']
    """

    folders: Sequence[Traversable]

    @classmethod
    def beside(cls, folder: Path | None) -> Folders:
        """The folder of a file, then what comes with functrain."""
        shipped = resources.files("functrain.examples") / "config"
        return cls([shipped] if folder is None else [folder, shipped])

    def options(self, group: str) -> list[str]:
        """The files of a group by name; none where there is no such group."""
        found = {
            entry.name.removesuffix(SUFFIX)
            for folder in self._in(group)
            for entry in folder.iterdir()
            if entry.name.endswith(SUFFIX)
        }
        return sorted(found)

    def groups(self) -> list[str]:
        """The groups there are at the top."""
        entries = [entry for folder in self._in("") for entry in folder.iterdir()]
        names = {entry.name for entry in entries if entry.is_dir() and self.options(entry.name)}
        return sorted(names)

    def read(self, group: str, name: str) -> Document | None:
        """A file's content, or ``None`` where there is none.

        Raises:
            ConfigError: it cannot be read.
        """
        for folder in self._in(group):
            file = _below(folder, f"{name}{SUFFIX}")
            if file.is_file():
                return document(text_of(file), shown(file))
        return None

    def missing(self, group: str, name: str) -> str:
        """What to say where there is no such file."""
        asked = f"{group}/{name}" if group else name
        options = self.options(group)
        said = f"there is no file {asked}{SUFFIX}{nearest(name, options)}"
        if options:
            return f"{said}; there are {', '.join(options)}"
        groups = self.groups()
        return f"{said} and no group {group!r}{nearest(group, groups)}; there are {groups}"

    def _in(self, group: str) -> list[Traversable]:
        places = [_below(folder, group) for folder in self.folders]
        return [place for place in places if place.is_dir()]


def text_of(file: Traversable) -> str:
    """The text of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _below(folder: Traversable, path: str) -> Traversable:
    for part in path.split("/"):
        folder = folder / part if part else folder
    return folder


def shown(file: Traversable) -> str:
    """A file for people: from the present folder, or from that of the package."""
    path = Path(str(file))
    for base in (Path.cwd(), _PACKAGE.parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
