"""Load a typed configuration from YAML and overrides; errors are one line with their location."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import attrs
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from functrain.config import overrides as words
from functrain.config.composition import Choices, compose_files
from functrain.config.conversion import convert
from functrain.config.locations import add_location, join_key
from functrain.config.schema import RunConfig
from functrain.config.search_path import SearchPath, read_text, short_path
from functrain.config.yaml_file import YamlFile, parse_file
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

SHIPPED = ("digits", "chargpt")
_SUFFIXES = (".yaml", ".yml")
_NOT_FOUND = re.compile(r"Interpolation key '([^']+)' not found")


@attrs.frozen
class Loaded:
    """A configuration and its origin.

    Attributes:
        config: the typed configuration.
        plain: the same as plain data, with resolved references.
        folder: the folder of the file, from which user modules can be imported.
        composed: the composed plain data with unresolved references.
        places: ``file:line`` by key.
    """

    config: RunConfig
    plain: dict[str, Any]
    folder: Path | None
    composed: dict[str, Any] = attrs.field(factory=dict)
    places: dict[str, str] = attrs.field(factory=dict, repr=False)


def load(source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Load a configuration, with the files that its ``defaults`` include.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: ``key.subkey=value`` with a value in YAML; ``+key=value`` adds, ``~key`` removes,
            ``group=name`` chooses another file of a group in ``defaults``, or replaces a section
            that the file has instead of the group.

    Returns:
        The configuration, with references such as ``${seed}`` resolved.

    Raises:
        ConfigError: the configuration is invalid; the message is one line with the location.

    Example:
        >>> load("digits", ["fit.until=2 epochs"]).config.fit.until
        '2 epochs'
    """
    data, places, folder = compose(source, overrides)
    with add_location(places):
        # Set the defaults before resolving references, which may refer to them.
        known = {"name": Path(source).stem, "directory": "runs/${name}", "seed": 0}
        data = {**known, **data}
        plain = resolved(data)
        return Loaded(typed(plain), plain, folder, data, places)


def compose(
    source: str, overrides: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, str], Path | None]:
    """Compose a file with its includes and overrides, as plain data of any content.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: as for :func:`load`.

    Returns:
        The data with unresolved references; ``file:line`` by key; the folder of the file.

    Raises:
        ConfigError: a file cannot be read, or an override has no target.
    """
    root, folder = _root(source)
    folders = SearchPath.of_folder(folder)
    given = [words.override(text) for text in overrides]
    choices = words.choices(given, folders)
    whole = compose_files(root, folders, choices)
    for include in words.replacements(given, whole.data, whole.keys, folders):
        chosen = Choices(choices.chosen, [include])
        whole = whole.replaced(
            include.group, compose_files(parse_file("", source), folders, chosen)
        )
    changes = words.values(given, whole.keys, folders)
    places = whole.places | words.places(changes)
    with add_location(places):
        return words.applied(whole.data, changes), places, folder


def typed(plain: dict[str, Any]) -> RunConfig:
    """Convert plain data, as from ``OmegaConf.to_container``, to a typed configuration.

    Raises:
        ConfigError: a key is unknown or missing, or a value has another type.

    Example:
        >>> typed({"sede": 1})
        Traceback (most recent call last):
        functrain.errors.ConfigError: sede: unknown key (did you mean 'seed'?)
    """
    return cast(RunConfig, convert(plain, RunConfig))


def resolved(data: dict[str, Any]) -> dict[str, Any]:
    """Resolve all references in plain data.

    Raises:
        ConfigError: a reference is invalid, or a value is missing (``???``).

    Example:
        >>> resolved({"seed": 3, "data": {"seed": "${seed}"}})
        {'seed': 3, 'data': {'seed': 3}}
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.create(data), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        sentence = str(error.args[0] if error.args else error).strip().splitlines()[0]
        match = _NOT_FOUND.match(sentence)
        hint = nearest(match[1], _keys(data)) if match else ""
        raise ConfigError(f"{sentence}{hint}", getattr(error, "full_key", None)) from error
    return cast(dict[str, Any], plain)


def _root(source: str) -> tuple[YamlFile, Path | None]:
    if source in SHIPPED:
        file = resources.files("functrain.examples") / f"{source}.yaml"
        return parse_file(read_text(file), short_path(file)), None
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{source!r} is neither an example ({', '.join(SHIPPED)}) nor a .yaml file"
            f"{nearest(source, SHIPPED)}"
        )
    return parse_file(read_text(path), source), path.resolve().parent


def _keys(node: Any, where: str = "") -> Iterator[str]:
    for key, child in node.items() if isinstance(node, dict) else ():
        yield join_key(where, key)
        yield from _keys(child, join_key(where, key))
