"""Find the files that a configuration includes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

import functrain
from functrain.config.yaml_file import YamlFile, parse_file
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

SUFFIX = ".yaml"
_PACKAGE = Path(functrain.__file__).parent


@attrs.frozen
class SearchPath:
    """Folders in search order.

    A file ``optimizer/adamw.yaml`` in one of them is the option ``adamw`` of the group
    ``optimizer``.

    Example:
        >>> SearchPath.of_folder(None).options("schedule")
        ['constant', 'cosine', 'linear', 'one_cycle', 'plateau', 'warmup_cosine']
    """

    folders: Sequence[Traversable]

    @classmethod
    def of_folder(cls, folder: Path | None) -> SearchPath:
        """Return the folder of a file, followed by the one that functrain ships."""
        shipped = resources.files("functrain.examples") / "config"
        return cls([shipped] if folder is None else [folder, shipped])

    def options(self, group: str) -> list[str]:
        """Return the names of the files of a group, none for an unknown group."""
        found = {
            entry.name.removesuffix(SUFFIX)
            for folder in self._in(group)
            for entry in folder.iterdir()
            if entry.name.endswith(SUFFIX)
        }
        return sorted(found)

    def groups(self) -> list[str]:
        """Return the top-level groups."""
        entries = [entry for folder in self._in("") for entry in folder.iterdir()]
        names = {entry.name for entry in entries if entry.is_dir() and self.options(entry.name)}
        return sorted(names)

    def read(self, group: str, name: str) -> YamlFile | None:
        """Return the content of a file, or ``None`` if it does not exist.

        Raises:
            ConfigError: the file cannot be read.
        """
        for folder in self._in(group):
            file = _below(folder, f"{name}{SUFFIX}")
            if file.is_file():
                return parse_file(read_text(file), short_path(file))
        return None

    def missing(self, group: str, name: str) -> str:
        """Return the message for a file that does not exist."""
        asked = f"{group}/{name}" if group else name
        options = self.options(group)
        message = f"there is no file {asked}{SUFFIX}{nearest(name, options)}"
        if options:
            return f"{message}; there are {', '.join(options)}"
        groups = self.groups()
        return f"{message} and no group {group!r}{nearest(group, groups)}; there are {groups}"

    def _in(self, group: str) -> list[Traversable]:
        places = [_below(folder, group) for folder in self.folders]
        return [place for place in places if place.is_dir()]


def read_text(file: Traversable) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error


def _below(folder: Traversable, path: str) -> Traversable:
    for part in path.split("/"):
        folder = folder / part if part else folder
    return folder


def short_path(file: Traversable) -> str:
    """Return a path relative to the working directory or the package."""
    path = Path(str(file))
    for base in (Path.cwd(), _PACKAGE.parent):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)
