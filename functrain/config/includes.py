"""The files that a configuration includes: its ``defaults`` as in Hydra, and their folders."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

import functrain
from functrain.config.locations import join_key
from functrain.config.yaml_file import YamlFile, parse_file
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

_SELF, _GLOBAL, _HERE = "_self_", "_global_", "_here_"
_PACKAGE = Path(functrain.__file__).parent
EXAMPLES = _PACKAGE / "examples"


@attrs.frozen
class Include:
    """One entry of the list.

    Attributes:
        group: the folder of the file, relative to the including file; absolute with ``/``.
        options: names of files in it; empty if the choice is ``null``.
        package: the key for their content (``@package``), or ``None`` for the default.
        selectable: whether ``group=option`` on the command line changes the choice.
        override: whether the entry only overrides the choice of a group in another file.
    """

    group: str
    options: tuple[str, ...]
    package: str | None = None
    selectable: bool = False
    optional: bool = False
    override: bool = False
    place: str = ""

    @property
    def is_self(self) -> bool:
        """Whether the entry stands for the content of the including file."""
        return self.options == (_SELF,) and not self.group

    def folder(self, parent: str) -> str:
        """Return the absolute group."""
        return posixpath.join("/", parent, self.group).strip("/")

    def target(self, parent: str, header: str | None = None) -> str:
        """Return the absolute package: from the entry, else the header, else the group.

        ``parent`` is the package of the including file; ``header``, in the included one, is
        absolute.
        """
        if self.package is None and header is not None:
            return header.removeprefix(_GLOBAL).strip(".")
        package = self.group.strip("/").replace("/", ".") if self.package is None else self.package
        if package.partition(".")[0] == _GLOBAL:
            return package.removeprefix(_GLOBAL).strip(".")
        return join_key(parent, package.removeprefix(_HERE).strip("."))

    def key(self, parent_folder: str, parent: str) -> str:
        """Return the key on the command line: ``group``, or ``group@package`` if needed."""
        folder = self.folder(parent_folder)
        usual = attrs.evolve(self, package=None).target(parent)
        package = self.target(parent)
        return folder if package == usual else f"{folder}@{package or _GLOBAL}"


def includes(document: YamlFile) -> list[Include]:
    """Return the entries of a file in order, with ``_self_`` last by default.

    Example:
        >>> from functrain.config.yaml_file import parse_file
        >>> [entry.options for entry in includes(parse_file("defaults: [base, {model: gpt}]", "f"))]
        [('base',), ('gpt',), ('_self_',)]
    """
    entries = [
        _include(entry, document.lines.get(f"defaults.{index}", document.name))
        for index, entry in enumerate(document.defaults)
    ]
    selves = [entry for entry in entries if entry.is_self]
    if len(selves) > 1:
        raise ConfigError(f"{selves[1].place}: defaults: {_SELF} occurs twice")
    return entries if selves else [*entries, Include("", (_SELF,), place=document.name)]


def _include(entry: Any, place: str) -> Include:
    single = isinstance(entry, dict) and len(entry) == 1
    if not single and not isinstance(entry, str):
        raise ConfigError(
            f"{place}: defaults: expected a file (base), a choice (optimizer: adamw) or {_SELF}, "
            f"got {entry!r}"
        )
    key, choice = next(iter(entry.items())) if single else (entry, None)
    *words, text = str(key).split() or [""]
    text, at, package = text.partition("@")
    where = package if at else None
    optional, override = "optional" in words, "override" in words
    if not single:
        folder, slash, name = text.rpartition("/")
        return Include(folder or slash, (name,), where, optional=optional, place=place)
    names = choice if isinstance(choice, list) else [] if choice is None else [choice]
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{place}: defaults: {key}: expected the name of a file, got {choice!r}")
    return Include(text, tuple(names), where, True, optional, override, place)


@attrs.frozen
class SearchPath:
    """Folders in search order.

    A file ``optimizer/adamw.yaml`` in one of them is the option ``adamw`` of the group
    ``optimizer``.

    Example:
        >>> SearchPath.of_folder(None).options("schedule")
        ['constant', 'cosine', 'linear', 'one_cycle', 'plateau', 'warmup_cosine']
    """

    folders: Sequence[Path]

    @classmethod
    def of_folder(cls, folder: Path | None) -> SearchPath:
        """Return the folder of a file, followed by the one that functrain ships."""
        return cls([*([] if folder is None else [folder]), EXAMPLES / "config"])

    def options(self, group: str) -> list[str]:
        """Return the names of the files of a group, none for an unknown group."""
        files = [file for folder in self.folders for file in (folder / group).glob("*.yaml")]
        return sorted({file.stem for file in files})

    def read(self, group: str, name: str) -> YamlFile | None:
        """Return the content of a file, or ``None`` if it does not exist."""
        path = f"{group}/{name}.yaml".lstrip("/")
        found = [folder / path for folder in self.folders if (folder / path).is_file()]
        return read_file(found[0]) if found else None

    def missing(self, group: str, name: str) -> str:
        """Return the message for a file that does not exist."""
        options = self.options(group)
        path = f"{group}/{name}.yaml".lstrip("/")
        message = f"there is no file {path}{nearest(name, options)}"
        if options:
            return f"{message}; there are {', '.join(options)}"
        files = [file for folder in self.folders for file in folder.glob("*/*.yaml")]
        groups = sorted({file.parent.name for file in files})
        return f"{message} and no group {group!r}{nearest(group, groups)}; there are {groups}"


def read_file(file: Path, name: str | None = None) -> YamlFile:
    """Read a file; its name in messages is by default relative to here or to the package."""
    name = name or _short(file)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        found = nearest(file.name, [one.name for one in file.parent.glob("*.y*ml")])
        raise ConfigError(f"{name} cannot be read: {error}{found}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read: {error}") from error
    return parse_file(text, name)


def _short(file: Path) -> str:
    bases = [base for base in (Path.cwd(), _PACKAGE.parent) if file.is_relative_to(base)]
    return str(file.relative_to(bases[0]) if bases else file)
