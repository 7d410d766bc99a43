"""Convert plain data to typed values; an error names the key of the first mistake."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import attrs

from functrain.config.locations import join_key
from functrain.config.targets import TARGET, instantiated
from functrain.errors import ConfigError, FunctrainError
from functrain.errors.nearest import nearest

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "a list",
}


@attrs.frozen
class AtLeast:
    """Annotates a number with its inclusive lower bound."""

    least: int


@attrs.frozen
class Described:
    """Annotates a value with the words for its type in messages, and the key that it needs."""

    words: str
    needs: str | None = None


def convert(value: Any, hint: Any, where: str = "") -> Any:
    """Convert a value to the type of a hint.

    A hint is a number, text, list, dict, attrs class, ``Literal``, ``Annotated`` or a union of
    them. ``where`` is the key of the value, for messages, here and in all functions of this room.

    Example:
        >>> from functrain.core.ema import EMA
        >>> convert({"decay": 0.5}, float | EMA, "ema")
        EMA(decay=0.5, every=1, warmup=False)
        >>> convert("3", int | None, "threads")
        Traceback (most recent call last):
        functrain.errors.ConfigError: threads: expected a whole number or null, got '3'
    """
    fitting = [option for option in alternatives(hint) if _fits(value, option)]
    if not fitting:
        raise ConfigError(f"expected {describe_type(hint)}, got {as_yaml(value)}", where)
    if isinstance(value, dict) and TARGET in value:
        # If both are allowed, a mapping with a target is a target and not a mapping of options.
        fitting.sort(key=lambda option: attrs.has(unannotated(option)[0]))
    elif isinstance(value, dict) and all(attrs.has(unannotated(option)[0]) for option in fitting):
        fitting.sort(key=lambda option: len(value.keys() - fields(unannotated(option)[0])))
    kind, note = unannotated(fitting[0])
    if isinstance(note, AtLeast) and value < note.least:
        raise ConfigError(f"expected at least {note.least}, got {value}", where)
    if isinstance(note, Described) and note.needs is not None and note.needs not in value:
        message = "missing; give the import path of a class or function"
        raise ConfigError(message, join_key(where, note.needs))
    if attrs.has(kind):
        if TARGET not in value:
            return _instance(value, kind, where)
        return _made(value, tuple(unannotated(option)[0] for option in fitting), where)
    arguments = typing.get_args(kind)
    if isinstance(value, list) and arguments:
        return [convert(each, arguments[0], join_key(where, i)) for i, each in enumerate(value)]
    if isinstance(value, dict) and arguments:
        return {k: convert(each, arguments[1], join_key(where, k)) for k, each in value.items()}
    return float(value) if kind is float else value


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or the hint itself."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def unannotated(hint: Any) -> tuple[Any, Any]:
    """Split a hint into its type and its annotation, ``None`` without one."""
    annotated = typing.get_origin(hint) is Annotated
    return typing.get_args(hint)[:2] if annotated else (hint, None)


def fields(cls: type) -> dict[str, attrs.Attribute[Any]]:
    """Return the fields of a class by name, with resolved types."""
    found: dict[str, attrs.Attribute[Any]] = attrs.fields_dict(attrs.resolve_types(cls))
    return found


def describe_type(hint: Any) -> str:
    """Describe a type in words.

    Example:
        >>> describe_type(list[str] | Literal["min", "max"] | None)
        "a list, 'min', 'max' or null"
    """
    words: list[str] = []
    for option in alternatives(hint):
        kind, note = unannotated(option)
        if isinstance(note, Described):
            words.append(note.words)
        elif typing.get_origin(kind) is Literal:
            words += [as_yaml(each) for each in typing.get_args(kind)]
        else:
            words.append(_WORDS.get(typing.get_origin(kind) or kind, "a mapping of options"))
    words = list(dict.fromkeys(words))
    return " or ".join([*[", ".join(words[:-1])] * (len(words) > 1), words[-1]])


def as_yaml(value: Any) -> str:
    """Format a value as in YAML."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _fits(value: Any, option: Any) -> bool:
    kind, _ = unannotated(option)
    if typing.get_origin(kind) is Literal:
        return any(value == each and type(value) is type(each) for each in typing.get_args(kind))
    plain = dict if attrs.has(kind) else typing.get_origin(kind) or kind
    return plain is Any or type(value) is plain or (plain is float and type(value) is int)


def _instance(value: dict[str, Any], cls: type, where: str) -> Any:
    known = fields(cls)
    for key in value:
        if key not in known:
            raise ConfigError(f"unknown key{_hint(key, cls)}", join_key(where, key))
    arguments = {
        name: convert(child, known[name].type, join_key(where, name))
        for name, child in value.items()
    }
    for name, field in known.items():
        if name not in value and field.default is attrs.NOTHING:
            raise ConfigError("missing", join_key(where, name))
    try:
        return cls(**arguments)
    except ConfigError as error:  # it names a key of the instance
        own = str(error).removeprefix(f"{error.where}: ")
        raise ConfigError(own, join_key(where, error.where or "") or None) from error
    except (FunctrainError, ValueError) as error:
        # Validators of attrs add further arguments after the message.
        sentence = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        raise ConfigError(sentence.strip().splitlines()[0], where) from error


def _made(value: dict[str, Any], classes: tuple[type, ...], where: str) -> Any:
    """Instantiate a section that is given as a target, as Hydra allows."""
    made = instantiated(value, where)
    if not isinstance(made, classes):
        names = " or ".join(cls.__name__ for cls in classes)
        message = f"{value[TARGET]} does not create a {names}"
        raise ConfigError(message, join_key(where, TARGET))
    return made


def _hint(key: Any, cls: type) -> str:
    """Suggest the nearest key in this class, or the same key in a nested section."""
    below = [path for path in _paths(cls) if path.endswith(f".{key}")]
    return nearest(str(key), fields(cls)) or (nearest(below[0], below) if below else "")


def _paths(cls: type, where: str = "") -> Iterator[str]:
    for name, field in fields(cls).items():
        yield join_key(where, name)
        for option in alternatives(field.type):
            if attrs.has(unannotated(option)[0]):
                yield from _paths(option, join_key(where, name))
