"""Load typed configurations from YAML and overrides; errors are one line with their location."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from functrain.config import overrides as words
from functrain.config.composition import compose_files
from functrain.config.conversion import convert
from functrain.config.includes import EXAMPLES, SearchPath, read_file
from functrain.config.locations import Places, add_location, build_key, join_key
from functrain.config.schema import RunConfig, SearchConfig
from functrain.config.yaml_file import YamlFile, parse_file
from functrain.errors import ConfigError, SearchError
from functrain.errors.nearest import nearest
from functrain.errors.paths import expanded
from functrain.search.space import Space, parameters, read_parameter, read_space

# The shipped examples by kind.
RUNS, SEARCHES = ("digits", "chargpt"), ("digits_search",)
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
    places: Places = attrs.field(factory=dict, repr=False)


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


def load_search(source: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Load the configuration of a search; to override that of its runs, use its ``overrides``.

    Raises:
        ConfigError: the configuration is invalid; the message is one line with the location.

    Example:
        >>> load_search("digits_search", ["trials=3"]).trials
        3
    """
    data, places, folder = compose(source, overrides, SEARCHES)
    with add_location(places):
        plain = resolved({"name": Path(source).stem, "directory": "runs/${name}", **data})
        if plain.get("overrides") is None:  # a list without entries in YAML
            plain["overrides"] = []
        config = cast(SearchConfig, convert(plain, SearchConfig))
        space = _space(config.space)
    base = expanded(source).parent / expanded(config.base)
    beside = folder is not None and base.suffix in _SUFFIXES and base.exists()
    return attrs.evolve(config, space=space, base=str(base) if beside else config.base)


def compose(
    source: str, overrides: Sequence[str] = (), examples: Sequence[str] = RUNS
) -> tuple[dict[str, Any], dict[str, str], Path | None]:
    """Compose a file with its includes and overrides, as plain data of any content.

    Return the data with unresolved references, ``file:line`` by key, and the folder of the file.
    """
    root, folder = _root(source, examples)
    folders = SearchPath.of_folder(folder)
    given = [words.override(text) for text in overrides]
    chosen, added = words.choices(given, folders)
    whole = compose_files(root, folders, chosen, added)
    for include in words.replacements(given, whole, folders):
        section = compose_files(parse_file("", source), folders, chosen, [include])
        whole = whole.replaced(include.group, section)
    changes = words.values(given, whole, folders)
    places = whole.places | {change.key: "" for change in changes}  # these have no line
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


def _root(source: str, examples: Sequence[str]) -> tuple[YamlFile, Path | None]:
    if source in examples:
        return read_file(EXAMPLES / f"{source}.yaml"), None
    if Path(source).suffix not in _SUFFIXES:
        raise ConfigError(
            f"{source!r} is neither an example ({', '.join(examples)}) nor a .yaml file"
            f"{nearest(source, examples)}"
        )
    path = expanded(source)
    return read_file(path, source), path.resolve().parent


def _space(given: dict[str, Any]) -> Space:
    """Read the space of a search; an error has the key of its parameter."""
    for name, node in parameters(given):
        build_key(join_key("space", name), partial(read_parameter, node))
    try:
        return read_space(given)
    except SearchError as error:
        raise ConfigError(str(error).removeprefix("space: "), "space") from error


def _keys(node: Any, where: str = "") -> Iterator[str]:
    for key, child in node.items() if isinstance(node, dict) else ():
        yield join_key(where, key)
        yield from _keys(child, join_key(where, key))
