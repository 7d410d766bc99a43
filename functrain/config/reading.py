"""From YAML and overrides to a typed configuration; every mistake is one line with its place."""

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
from functrain.config.composing import Choices, composed
from functrain.config.documents import Document, document
from functrain.config.folders import Folders, shown, text_of
from functrain.config.places import joined, located
from functrain.config.schema import RunConfig
from functrain.config.structuring import structured
from functrain.errors import ConfigError
from functrain.errors.nearest import nearest

SHIPPED = ("digits", "chargpt")
_SUFFIXES = (".yaml", ".yml")
_NOT_FOUND = re.compile(r"Interpolation key '([^']+)' not found")


@attrs.frozen
class Loaded:
    """A configuration and where it came from.

    Attributes:
        config: typed.
        plain: the same as plain data, every reference resolved.
        folder: where the file lies; user modules beside it can be imported.
        composed: of one piece, but with its references as they were written.
        places: ``file:line`` by key.
    """

    config: RunConfig
    plain: dict[str, Any]
    folder: Path | None
    composed: dict[str, Any] = attrs.field(factory=dict)
    places: dict[str, str] = attrs.field(factory=dict, repr=False)


def load(source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read a configuration, with the files that its ``defaults`` include.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: ``key.subkey=value``, the value in YAML; ``+key=value`` adds, ``~key`` removes,
            ``group=name`` takes another file of a group in ``defaults``, or replaces what the file
            writes out in its place.

    Returns:
        The configuration, references such as ``${seed}`` resolved.

    Raises:
        ConfigError: anything is wrong; the message is one line and names the place.

    Example:
        >>> load("digits", ["fit.until=2 epochs"]).config.fit.until
        '2 epochs'
    """
    data, places, folder = compose(source, overrides)
    with located(places):
        # Known before references are resolved, so that they can be referred to.
        known = {"name": Path(source).stem, "directory": "runs/${name}", "seed": 0}
        data = {**known, **data}
        plain = resolved(data)
        return Loaded(typed(plain), plain, folder, data, places)


def compose(
    source: str, overrides: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, str], Path | None]:
    """A file with all that it includes and the overrides, as plain data of any content.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: as for :func:`load`.

    Returns:
        The data, references as they were written; ``file:line`` by key; the file's folder.

    Raises:
        ConfigError: a file cannot be read, or an override has no place.
    """
    root, folder = _root(source)
    folders = Folders.beside(folder)
    given = [words.override(text) for text in overrides]
    choices = words.choices(given, folders)
    whole = composed(root, folders, choices)
    for include in words.replacements(given, whole.data, whole.keys, folders):
        chosen = Choices(choices.chosen, [include])
        whole = whole.replaced(include.group, composed(document("", source), folders, chosen))
    changes = words.values(given, whole.keys, folders)
    places = whole.places | words.places(changes)
    with located(places):
        return words.applied(whole.data, changes), places, folder


def typed(plain: dict[str, Any]) -> RunConfig:
    """Plain data as a typed configuration, such as ``OmegaConf.to_container`` gives it.

    Raises:
        ConfigError: a key is unknown or missing, or a value is of another type.

    Example:
        >>> typed({"sede": 1})
        Traceback (most recent call last):
        functrain.errors.ConfigError: sede: unknown key (did you mean 'seed'?)
    """
    return cast(RunConfig, structured(plain, RunConfig))


def resolved(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data with every reference replaced by what it refers to.

    Raises:
        ConfigError: one refers to nothing, or a value is missing (``???``).

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


def _root(source: str) -> tuple[Document, Path | None]:
    if source in SHIPPED:
        file = resources.files("functrain.examples") / f"{source}.yaml"
        return document(text_of(file), shown(file)), None
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        raise ConfigError(
            f"{source!r} is neither an example ({', '.join(SHIPPED)}) nor a .yaml file"
            f"{nearest(source, SHIPPED)}"
        )
    return document(text_of(path), source), path.resolve().parent


def _keys(node: Any, where: str = "") -> Iterator[str]:
    for key, child in node.items() if isinstance(node, dict) else ():
        yield joined(where, key)
        yield from _keys(child, joined(where, key))
