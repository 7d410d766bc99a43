"""From YAML and overrides to a typed configuration; every mistake is one line with its path."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import attrs
import cattrs
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from functrain.config.schema import RunConfig
from functrain.errors import ConfigError
from functrain.names import nearest

SHIPPED = ("digits", "chargpt")


@attrs.frozen
class Loaded:
    """A configuration and where it came from.

    Attributes:
        config: typed.
        plain: the same as plain data, every reference resolved.
        folder: where the file lies; user modules beside it can be imported.
    """

    config: RunConfig
    plain: dict[str, Any]
    folder: Path | None


def load(source: str, overrides: Sequence[str] = ()) -> Loaded:
    """Read a configuration.

    Args:
        source: the name of a shipped example, or a YAML file.
        overrides: ``key.subkey=value``, the value in YAML.

    Returns:
        The configuration, references such as ``${seed}`` resolved.

    Raises:
        ConfigError: anything is wrong; the message is one line and names the place.

    Example:
        >>> load("digits", ["fit.until=2 epochs"]).config.fit.until
        '2 epochs'
    """
    text, folder = _text(source)
    try:
        merged = _parsed(text, source)
        for override in overrides:
            _override(merged, override)
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = getattr(error, "full_key", None) or source
        raise ConfigError(f"{where}: {_first_line(error)}") from error
    data = {str(key): value for key, value in cast(dict[Any, Any], plain).items()}
    data.setdefault("name", Path(source).stem)
    data.setdefault("directory", f"runs/{data['name']}")
    return Loaded(structured(data), data, folder)


def structured(plain: dict[str, Any]) -> RunConfig:
    """Plain data as a typed configuration.

    Raises:
        ConfigError: a key is unknown or missing, or a value is of another type.
    """
    _check_keys(RunConfig, plain, "")
    converter = cattrs.Converter(forbid_extra_keys=True)
    # Text where a number is expected is a mistake, not a number.
    for kind in (int, float, str, bool):
        converter.register_structure_hook(kind, _strictly)
    converter.register_structure_hook_func(lambda hint: hint == str | list[str], lambda v, _: v)
    converter.register_structure_hook_func(lambda hint: hint == dict[str, Any], _mapping)
    try:
        return converter.structure(plain, RunConfig)
    except cattrs.BaseValidationError as error:
        raise ConfigError(_explained(error)) from error


def _text(source: str) -> tuple[str, Path | None]:
    if source in SHIPPED:
        return (resources.files("functrain.examples") / f"{source}.yaml").read_text(), None
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"{source!r} is neither an example ({', '.join(SHIPPED)}) nor a .yaml file"
            f"{nearest(source, SHIPPED)}"
        )
    try:
        return path.read_text(encoding="utf-8"), path.resolve().parent
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} cannot be read: {error}") from error


def _parsed(text: str, source: str) -> DictConfig:
    try:
        created = OmegaConf.create(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {_yaml_line(error)}") from error
    if not isinstance(created, DictConfig):
        raise ConfigError(f"{source}: expected a mapping of options at the top")
    return created


def _override(config: DictConfig, override: str) -> None:
    """Put the value of one ``key=value`` in its place; numbers in a key are places in lists."""
    key, given, text = override.partition("=")
    if not key or not given:
        raise ConfigError(f"override {override!r}: write key=value, such as seed=1")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        OmegaConf.update(config, key, cast(dict[str, Any], value)["value"], merge=True)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", error)
        raise ConfigError(f"override {override!r}: not valid YAML: {problem}") from error
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{key}: {_first_line(error)}") from error


def _yaml_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}: "
    return where + str(getattr(error, "problem", error))


def _check_keys(cls: type, plain: dict[str, Any], path: str) -> None:
    """Refuse unknown and missing keys, in this class and in those it holds."""
    fields = attrs.fields_dict(attrs.resolve_types(cls))
    for key in plain:
        if key not in fields:
            raise ConfigError(f"{path}{key}: unknown key{nearest(key, fields)}")
    for name, field in fields.items():
        if name not in plain:
            if field.default is attrs.NOTHING:
                raise ConfigError(f"{path}{name}: missing")
            continue
        inner, value = _attrs_class(field.type), plain[name]
        if inner is None or (value is None and isinstance(field.type, types.UnionType)):
            continue
        if not isinstance(value, dict):
            raise ConfigError(f"{path}{name}: expected a mapping of options, came {value!r}")
        _check_keys(inner, value, f"{path}{name}.")


def _not_none(hint: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next(option for option in options if option is not type(None))


def _attrs_class(hint: Any) -> type | None:
    option = _not_none(hint)
    return option if isinstance(option, type) and attrs.has(option) else None


def _strictly(value: Any, kind: type) -> Any:
    whole_as_float = kind is float and type(value) is int
    if type(value) is kind or whole_as_float:
        return kind(value)
    raise TypeError(f"expected {kind.__name__}, came {value!r}")


def _mapping(value: Any, hint: Any) -> Any:
    if isinstance(value, dict):
        return value
    raise TypeError(f"expected a mapping of options, came {value!r}")


def _explained(error: cattrs.BaseValidationError) -> str:
    """The first mistake, with its path."""
    current: Exception = error
    path: list[str] = []
    while isinstance(current, cattrs.BaseValidationError):
        current = current.exceptions[0]
        for note in getattr(current, "__notes__", ()):
            name = getattr(note, "name", getattr(note, "index", None))
            if name is not None:
                path.append(str(name))
    return ": ".join([*(".".join(path),) * bool(path), _first_line(current)])


def _first_line(error: Exception) -> str:
    # Validators of attrs put the attribute and more beside the sentence.
    sentence = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
    return sentence.strip().splitlines()[0]
