"""Find and read the files that a configuration includes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

import functrain
from functrain.config.yaml_file import YamlFile, parse_file
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

_PACKAGE = Path(functrain.__file__).parent
EXAMPLES = _PACKAGE / "examples"


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
    """Read a file; its name in messages is by default relative to here or to the package.

    Raises:
        ConfigError: the file cannot be read, or is not a valid configuration.
    """
    name = name or _short(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read: {error}") from error
    return parse_file(text, name)


def _short(file: Path) -> str:
    bases = [base for base in (Path.cwd(), _PACKAGE.parent) if file.is_relative_to(base)]
    return str(file.relative_to(bases[0]) if bases else file)
