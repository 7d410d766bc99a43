"""Read the YAML file of a search, with overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from functrain.errors import SearchError
from functrain.errors.nearest import nearest
from functrain.search.space import Space, read_space

SHIPPED = ("digits_search",)


def _of_type(*kinds: type) -> Any:
    """Return a validator of types for which ``True`` is not a number."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("nothing" if k is type(None) else k.__name__ for k in kinds)
            raise SearchError(f"{attribute.name}: expected {names}, got {value!r}")

    return check


@attrs.frozen(kw_only=True)
class SearchConfig:
    """The content of a file; see :func:`functrain.search.search` for the other options.

    Attributes:
        base: the source for ``functrain train``: an example, or a YAML file relative to this one.
        overrides: overrides of the base, for all trials.
        space: parameters by their dotted path in the base.
        name: the name of the search, by default that of the file.
        directory: the directory of the search, by default ``runs/NAME``.
    """

    base: str = attrs.field(validator=_of_type(str))
    overrides: list[str]
    space: Space
    metric: str = attrs.field(validator=_of_type(str))
    name: str = attrs.field(validator=_of_type(str))
    directory: str = attrs.field(validator=_of_type(str))
    direction: Any = attrs.field(default=None, validator=_of_type(str, type(None)))
    value: str = attrs.field(default="last", validator=_of_type(str))
    trials: int = attrs.field(default=20, validator=_of_type(int))
    timeout: str | None = attrs.field(default=None, validator=_of_type(str, type(None)))
    seeds: list[int] = attrs.field(factory=lambda: [0], validator=_of_type(list))
    sampler: dict[str, Any] | None = attrs.field(default=None, validator=_of_type(dict, type(None)))
    pruner: dict[str, Any] | None = attrs.field(default=None, validator=_of_type(dict, type(None)))
    max_failures: int = attrs.field(default=5, validator=_of_type(int))


def read_search(source: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read the file of a search.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: ``key=value`` for this file, with a value in YAML. To override the base, use
            its key ``overrides``.

    Raises:
        SearchError: a key or its value is invalid; the message is one line with the key.

    Example:
        >>> read_search("digits_search", ["trials=3"]).trials
        3
    """
    text, folder = _text(source)
    data = _merged(text, source, overrides)
    known = attrs.fields_dict(SearchConfig)
    for key in data:
        if key not in known:
            raise SearchError(f"{source}: {key}: unknown key{nearest(str(key), known)}")
    data.setdefault("name", Path(source).stem)
    data.setdefault("directory", f"runs/{data['name']}")
    for key in ("base", "space", "metric"):
        if data.get(key) is None:
            raise SearchError(f"{source}: {key}: missing")
    if not isinstance(data["space"], Mapping):
        raise SearchError("space: expected parameters by name")
    try:
        return SearchConfig(**{
            **data,
            "base": _base_path(data["base"], folder),
            "overrides": _override_list(data.get("overrides")),
            "space": read_space(data["space"]),
        })  # fmt: skip
    except SearchError as error:
        raise SearchError(f"{source}: {error}") from error


def _text(source: str) -> tuple[str, Path | None]:
    if source in SHIPPED:
        return (resources.files("functrain.examples") / f"{source}.yaml").read_text(), None
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise SearchError(
            f"{source!r} is neither an example ({', '.join(SHIPPED)}) nor a .yaml file"
            f"{nearest(source, SHIPPED)}"
        )
    try:
        return path.read_text(encoding="utf-8"), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"{source} cannot be read: {error}") from error


def _merged(text: str, source: str, overrides: Sequence[str]) -> dict[str, Any]:
    try:
        given: Any = OmegaConf.to_container(OmegaConf.create(text))
        if not isinstance(given, dict):
            raise SearchError(f"{source}: expected a mapping of options at the top")
        # Nested by section, so that overrides can address each part.
        given["space"] = _nested(given.get("space"))
        merged = OmegaConf.merge(given, OmegaConf.from_dotlist(list(overrides)))
        plain: Any = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise SearchError(f"{source}: {' '.join(str(error).split())}") from error
    return {str(key): value for key, value in plain.items()}


def _nested(node: Any) -> Any:
    """Turn dotted names into nested sections."""
    if not isinstance(node, dict):
        return node
    made: dict[str, Any] = {}
    for name, child in node.items():
        *sections, last = str(name).split(".")
        place = made
        for section in sections:
            place = place.setdefault(section, {})
        new, before = _nested(child), place.get(last)
        place[last] = {**before, **new} if isinstance(before, dict) else new
    return made


def _base_path(base: Any, folder: Path | None) -> Any:
    """Return the path of a base file relative to the file of the search, if it exists."""
    if folder is None or not isinstance(base, str):
        return base
    path = folder / base
    return str(path) if path.suffix in (".yaml", ".yml") and path.exists() else base


def _override_list(overrides: Any) -> list[str]:
    if overrides is None:
        return []
    if isinstance(overrides, list) and all(isinstance(one, str) for one in overrides):
        return overrides
    raise SearchError(f"overrides: expected a list of key=value, got {overrides!r}")
