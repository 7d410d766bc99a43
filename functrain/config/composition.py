"""Compose a configuration from several files, with the order and rules of Hydra's defaults list.

Later entries override earlier ones. The content of the file itself (``_self_``) comes last, unless
its list places it elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from functrain.config.includes import Include, SearchPath, includes
from functrain.config.locations import join_key
from functrain.config.yaml_file import YamlFile
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

MISSING = "???"
# Chosen options by key (``optimizer``, ``schedule@optimizer.lr``); empty for none.
Choices = Mapping[str, tuple[str, ...]]


@attrs.frozen
class Composition:
    """A composed configuration.

    Attributes:
        data: plain data with unresolved references.
        places: ``file:line`` by key.
        keys: the groups for which there is a choice.
    """

    data: dict[str, Any]
    places: dict[str, str]
    keys: frozenset[str]

    def replaced(self, key: str, other: Composition) -> Composition:
        """Return this configuration with everything below ``key`` from another one."""
        kept = {at: place for at, place in self.places.items() if at.split(".")[0] != key}
        data = {**self.data, key: other.data[key]}
        return Composition(data, kept | other.places, self.keys | other.keys)


def compose_files(
    root: YamlFile, folders: SearchPath, chosen: Choices, added: Sequence[Include] = ()
) -> Composition:
    """Read the files that a file includes, and merge all of them.

    ``chosen`` are the choices on the command line; ``added`` follows the entries of the file.
    """
    composer = _Composer(folders, dict(chosen))
    layers = composer.layers(root, "", "", (root.name,), added)
    composer.check_overrides()
    data: dict[str, Any] = {}
    places: dict[str, str] = {}
    for document, package in layers:
        inside: dict[str, Any] = document.data
        for key in reversed(package.split(".") if package else []):
            inside = {key: inside}
        data = merge(data, inside)
        places |= {join_key(package, key): place for key, place in document.lines.items()}
    return Composition(data, places, frozenset(composer.keys))


@attrs.define
class _Composer:
    """A traversal of the files; choices of outer files and later entries take precedence."""

    folders: SearchPath
    chosen: dict[str, tuple[str, ...]]
    overrides: dict[str, str] = attrs.field(factory=dict)
    keys: dict[str, tuple[str, ...]] = attrs.field(factory=dict)

    def layers(
        self,
        document: YamlFile,
        folder: str,
        package: str,
        chain: tuple[str, ...],
        added: Sequence[Include] = (),
    ) -> list[tuple[YamlFile, str]]:
        """Return the file and its includes with their packages, lowest layer first."""
        entries = [*includes(document), *added]
        for entry in entries:
            if entry.override:
                self._note(entry, folder, package)
        found: list[tuple[YamlFile, str]] = []
        # Backwards, so that a later file can override the groups of earlier ones.
        for entry in reversed([entry for entry in entries if not entry.override]):
            own = [(document, package)]
            found[:0] = own if entry.is_self else self._included(entry, folder, package, chain)
        return found

    def _note(self, entry: Include, folder: str, package: str) -> None:
        # In Hydra the group of an override is absolute, in any file.
        absolute = entry.folder(folder)
        key = absolute if entry.package is None else entry.key(folder, package)
        self.overrides.setdefault(key, entry.place)
        self.chosen.setdefault(key, entry.options)

    def _included(
        self, entry: Include, folder: str, package: str, chain: tuple[str, ...]
    ) -> list[tuple[YamlFile, str]]:
        options = entry.options
        if entry.selectable:
            key = entry.key(folder, package)
            options = self.chosen.get(key, options)
            if self.keys.setdefault(key, options) != options:
                raise ConfigError(
                    f"{entry.place}: defaults: there are two choices for {key}; to change that of "
                    f"another file write override {key}"
                )
        group = entry.folder(folder)
        found: list[tuple[YamlFile, str]] = []
        for name in options:
            document = self._read(entry, group, name, chain)
            if document is not None:
                target = entry.target(package, document.package)
                inner = f"{group}/{name}".rpartition("/")[0].strip("/")  # a name may have folders
                found += self.layers(document, inner, target, (*chain, document.name))
        return found

    def _read(
        self, entry: Include, group: str, name: str, chain: tuple[str, ...]
    ) -> YamlFile | None:
        prefix = f"{entry.place}: defaults: " if entry.place else "defaults: "
        document = self.folders.read(group, name)
        if document is None and not entry.optional:
            raise ConfigError(f"{prefix}{self.folders.missing(group, name)}")
        if document is not None and document.name in chain:
            cycle = " -> ".join([*chain[chain.index(document.name) :], document.name])
            raise ConfigError(f"{prefix}files include each other: {cycle}")
        return document

    def check_overrides(self) -> None:
        """Check that each override is of a group that some file includes."""
        for key, place in self.overrides.items():
            if key not in self.keys:
                raise ConfigError(
                    f"{place}: defaults: override {key}: no file includes that group"
                    f"{nearest(key, self.keys)}; there are {sorted(self.keys)}"
                )


def merge(below: Any, above: Any) -> Any:
    """Merge two layers: mappings key by key; any other value of ``above`` replaces ``below``.

    ``???`` keeps the value below.

    Example:
        >>> merge({"lr": 0.1, "betas": [0.9, 0.99]}, {"betas": [0.5], "eps": 1})
        {'lr': 0.1, 'betas': [0.5], 'eps': 1}
    """
    if isinstance(below, dict) and isinstance(above, dict):
        both = {key: merge(below[key], value) for key, value in above.items() if key in below}
        return {**below, **above, **both}
    return below if isinstance(above, str) and above == MISSING else above
