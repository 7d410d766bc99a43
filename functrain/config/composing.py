"""One configuration from several files, in the order and by the rules of Hydra's defaults list.

Later entries go over earlier ones; a file's own word (``_self_``) is last unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from functrain.config.defaults import SELF, Include, includes
from functrain.config.documents import Document
from functrain.config.folders import Folders
from functrain.config.merging import merged, wrapped
from functrain.config.places import joined
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest


@attrs.frozen
class Choices:
    """What the command line says about groups.

    Attributes:
        chosen: options by key (``optimizer``, ``schedule@optimizer.lr``); empty for none.
        added: entries after those of the file.
    """

    chosen: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    added: Sequence[Include] = ()


@attrs.frozen
class Composed:
    """A configuration of one piece.

    Attributes:
        data: plain, references not resolved.
        places: ``file:line`` by key.
        keys: the groups that a choice can be made of.
    """

    data: dict[str, Any]
    places: dict[str, str]
    keys: frozenset[str]

    def replaced(self, key: str, other: Composed) -> Composed:
        """Return this configuration with everything below ``key`` from another one."""
        kept = {at: place for at, place in self.places.items() if at.split(".")[0] != key}
        return Composed(
            {**self.data, key: other.data[key]}, kept | other.places, self.keys | other.keys
        )


def composed(root: Document, folders: Folders, choices: Choices) -> Composed:
    """Follow what a file includes, and put all layers over one another.

    Args:
        root: the file.
        folders: where others are looked for.
        choices: of the command line.

    Raises:
        ConfigError: a file is missing, includes itself, or chooses for a group that is not there.
    """
    composition = _Composition(folders, dict(choices.chosen))
    layers = composition.layers(root, "", "", (root.name,), choices.added)
    composition.check_overrides()
    data: dict[str, Any] = {}
    places: dict[str, str] = {}
    for document, package in layers:
        inside = wrapped(package.split(".") if package else [], document.data)
        data = merged(data, inside)
        places |= {joined(package, key): place for key, place in document.lines.items()}
    return Composed(data, places, frozenset(composition.keys))


@attrs.define
class _Composition:
    """A walk through the files; what outer files and later entries choose counts first."""

    folders: Folders
    chosen: dict[str, tuple[str, ...]]
    overrides: dict[str, str] = attrs.field(factory=dict)
    keys: dict[str, tuple[str, ...]] = attrs.field(factory=dict)

    def layers(
        self,
        document: Document,
        folder: str,
        package: str,
        chain: tuple[str, ...],
        added: Sequence[Include] = (),
    ) -> list[tuple[Document, str]]:
        entries = [*includes(document), *added]
        for entry in entries:
            if entry.override:
                self._note(entry, folder, package)
        found: list[tuple[Document, str]] = []
        # Backwards, so that a later file can choose for the groups of earlier ones.
        for entry in reversed([entry for entry in entries if not entry.override]):
            if entry.options == (SELF,) and not entry.group:
                found = [(document, package), *found]
            else:
                found = [*self._included(entry, folder, package, chain), *found]
        return found

    def _note(self, entry: Include, folder: str, package: str) -> None:
        key = entry.key(folder, package)
        # Hydra names the group to override from the top, whatever file says so.
        key = entry.folder(folder) if entry.package is None else key
        self.overrides.setdefault(key, entry.place)
        self.chosen.setdefault(key, entry.options)

    def _included(
        self, entry: Include, folder: str, package: str, chain: tuple[str, ...]
    ) -> list[tuple[Document, str]]:
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
        found: list[tuple[Document, str]] = []
        for name in options:
            document = self._read(entry, group, name, chain)
            if document is not None:
                target = entry.target(package, document.package)
                inner = folder_of(group, name)
                found += self.layers(document, inner, target, (*chain, document.name))
        return found

    def _read(
        self, entry: Include, group: str, name: str, chain: tuple[str, ...]
    ) -> Document | None:
        prefix = f"{entry.place}: defaults: " if entry.place else "defaults: "
        document = self.folders.read(group, name)
        if document is None and not entry.optional:
            raise ConfigError(f"{prefix}{self.folders.missing(group, name)}")
        if document is not None and document.name in chain:
            cycle = " -> ".join([*chain[chain.index(document.name) :], document.name])
            raise ConfigError(f"{prefix}files include each other: {cycle}")
        return document

    def check_overrides(self) -> None:
        """An override of a group that is nowhere is a mistake."""
        for key, place in self.overrides.items():
            if key not in self.keys:
                raise ConfigError(
                    f"{place}: defaults: override {key}: no file includes that group"
                    f"{nearest(key, self.keys)}; there are {sorted(self.keys)}"
                )


def folder_of(group: str, name: str) -> str:
    """The folder of a file ``group/name``; a name may have folders in it.

    Example:
        >>> folder_of("model", "small/gpt"), folder_of("", "base")
        ('model/small', '')
    """
    return "/".join(part for part in (group, name.rpartition("/")[0]) if part)
