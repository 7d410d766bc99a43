"""Plain data as typed values; the first mistake is named with its key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import attrs

from functrain.config.kinds import AtLeast, Described
from functrain.config.places import joined
from functrain.config.targets import TARGET, instantiated
from functrain.errors import ConfigError, FunctrainError
from functrain.errors.nearest import nearest

_WORDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_DESCRIBED: dict[Any, str] = {
    Described("duration"): "a duration such as '10 epochs'",
    Described("import_path"): "an import path",
    Described("target"): "a mapping with _target_",
    Described("targets"): "a mapping with _target_",
}


def structured(value: Any, hint: Any, where: str = "") -> Any:
    """A value of the type a hint tells.

    Args:
        value: plain data.
        hint: a number, text, list, dict, attrs class, ``Literal``, ``Annotated`` or union of them.
        where: its key, for messages.

    Raises:
        ConfigError: it has another type, an unknown key, or lacks one.

    Example:
        >>> from functrain.core.ema import EMA
        >>> structured({"decay": 0.5}, float | EMA, "ema")
        EMA(decay=0.5, every=1, warmup=False)
        >>> structured("3", int | None, "threads")
        Traceback (most recent call last):
        functrain.errors.ConfigError: threads: expected a whole number or null, got '3'
    """
    fitting = [option for option in options(hint) if _fits(value, option)]
    if not fitting:
        raise ConfigError(f"expected {described(hint)}, got {shown(value)}", where)
    if isinstance(value, dict) and TARGET in value:
        # A mapping that says what it makes is no mapping of options, if it may be either.
        fitting.sort(key=lambda option: attrs.has(bare(option)[0]))
    kind, notes = bare(fitting[0])
    for note in notes:
        if isinstance(note, AtLeast) and value < note.least:
            raise ConfigError(f"expected at least {note.least}, got {value}", where)
        if note == Described("target") and TARGET not in value:
            said = "missing; give the import path of what makes it"
            raise ConfigError(said, joined(where, TARGET))
    if attrs.has(kind):
        return _instance(value, kind, where)
    arguments = typing.get_args(kind)
    if isinstance(value, list) and arguments:
        return [structured(each, arguments[0], joined(where, i)) for i, each in enumerate(value)]
    if isinstance(value, dict) and arguments:
        return {k: structured(each, arguments[1], joined(where, k)) for k, each in value.items()}
    return float(value) if kind is float else value


def options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; of any other hint that one."""
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return typing.get_args(hint) if union else (hint,)


def bare(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without its annotations, and these."""
    if typing.get_origin(hint) is Annotated:
        kind, *notes = typing.get_args(hint)
        return kind, tuple(notes)
    return hint, ()


def fields(cls: type) -> dict[str, attrs.Attribute[Any]]:
    """The fields of a class by name, with their types."""
    found: dict[str, attrs.Attribute[Any]] = attrs.fields_dict(attrs.resolve_types(cls))
    return found


def described(hint: Any) -> str:
    """A type in words.

    Example:
        >>> described(list[str] | Literal["min", "max"] | None)
        "a list, 'min', 'max' or null"
    """
    words: list[str] = []
    for option in options(hint):
        kind, notes = bare(option)
        told = [_DESCRIBED[note] for note in notes if note in _DESCRIBED]
        if told:
            words += told
        elif typing.get_origin(kind) is Literal:
            words += [shown(each) for each in typing.get_args(kind)]
        else:
            plain = typing.get_origin(kind) or kind
            mapping = "a mapping of options"
            words.append(_WORDS.get(plain, "a list" if plain is list else mapping))
    return " or ".join([*[", ".join(words[:-1])] * (len(words) > 1), words[-1]])


def shown(value: Any) -> str:
    """A value as YAML would have it."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else repr(value)


def _fits(value: Any, option: Any) -> bool:
    kind, _ = bare(option)
    if typing.get_origin(kind) is Literal:
        return any(value == each and type(value) is type(each) for each in typing.get_args(kind))
    plain = typing.get_origin(kind) or kind
    if plain is Any:
        return True
    if attrs.has(plain):
        return isinstance(value, dict)
    return type(value) is plain or (plain is float and type(value) is int)


def _instance(value: dict[str, Any], cls: type, where: str) -> Any:
    if TARGET in value:
        return _made(value, cls, where)
    known = fields(cls)
    for key in value:
        if key not in known:
            raise ConfigError(f"unknown key{_hint(key, cls)}", joined(where, key))
    arguments = {
        name: structured(child, known[name].type, joined(where, name))
        for name, child in value.items()
    }
    for name, field in known.items():
        if name not in value and field.default is attrs.NOTHING:
            raise ConfigError("missing", joined(where, name))
    try:
        return cls(**arguments)
    except (FunctrainError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        # Validators of attrs put the attribute and more beside the sentence.
        sentence = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        raise ConfigError(sentence.strip().splitlines()[0], where) from error


def _made(value: dict[str, Any], cls: type, where: str) -> Any:
    """What a target makes where a section may be given as one, as for Hydra."""
    made = instantiated(value, where)
    if not isinstance(made, cls):
        raise ConfigError(f"{value[TARGET]} makes no {cls.__name__}", joined(where, TARGET))
    return made


def _hint(key: Any, cls: type) -> str:
    """The nearest key here, or the same one in a section below."""
    near = nearest(str(key), fields(cls))
    if near:
        return near
    below = [path for path in _paths(cls) if path.rpartition(".")[2] == key]
    return nearest(below[0], below) if below else ""


def _paths(cls: type, where: str = "") -> Iterator[str]:
    for name, field in fields(cls).items():
        yield joined(where, name)
        for option in options(field.type):
            if attrs.has(bare(option)[0]):
                yield from _paths(option, joined(where, name))
