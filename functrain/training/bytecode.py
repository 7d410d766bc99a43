"""Digests of functions, and the names that they read, by their bytecode."""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

_PACKAGE = Path(__file__).parents[1]
_HAS_DOCSTRING = 0x4000000  # CO_HAS_DOCSTRING; before Python 3.13 the first constant may be one


def digest(code: types.CodeType) -> str:
    """Return a hash of instructions and constants; not of lines, docstring or names of variables.

    Example:
        >>> double = lambda x: 2 * x
        >>> digest(double.__code__) == digest((lambda value: 2 * value).__code__)
        True
        >>> digest(double.__code__) == digest((lambda x: 3 * x).__code__)
        False
    """
    return xxh3_64_hexdigest(repr(_plain_code(code)).encode())


def _plain_code(code: types.CodeType) -> tuple[Any, ...]:
    constants = code.co_consts
    may_document = sys.version_info < (3, 13) or code.co_flags & _HAS_DOCSTRING
    if may_document and constants and isinstance(constants[0], str):
        constants = (None, *constants[1:])
    return code.co_code, code.co_names, tuple(map(_plain_constant, constants))


def _plain_constant(constant: Any) -> Any:
    if isinstance(constant, types.CodeType):
        return _plain_code(constant)
    if isinstance(constant, tuple):
        return tuple(map(_plain_constant, constant))
    return sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant


def global_names(code: types.CodeType) -> set[str]:
    """Return the globals that code and functions within it read."""
    return set(_arguments(code, "LOAD_GLOBAL", "LOAD_NAME"))


def read_names(code: types.CodeType) -> set[str]:
    """Return the attributes that code reads, and its texts, which may be keys."""
    constants = [constant for each in _codes(code) for constant in each.co_consts]
    inside = [text for each in constants if isinstance(each, tuple) for text in each]
    texts = {text for text in constants + inside if isinstance(text, str)}
    return texts | set(_arguments(code, "LOAD_ATTR", "LOAD_METHOD"))


def _arguments(code: types.CodeType, *names: str) -> Iterator[str]:
    for each in _codes(code):
        yield from (one.argval for one in dis.get_instructions(each) if one.opname in names)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def is_own(value: Any) -> bool:
    """Return whether a function or a class is of the user's files, a notebook or a prompt."""
    code = getattr(value, "__code__", None)
    if code is not None and not code.co_filename.startswith("<"):
        return _is_own_file(code.co_filename)
    return value.__module__ is None or is_own_module(value.__module__)


def is_own_module(name: str) -> bool:
    """Return whether a module is neither Python's nor of an installed package."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is None or _is_own_file(file)


def _is_own_file(file: str) -> bool:
    # Environments may use the packages of others.
    in_packages = {"site-packages", "dist-packages"}.intersection(Path(file).parts)
    return not in_packages and not file.startswith(_pythons_own())


@functools.cache
def _pythons_own() -> tuple[str, ...]:
    """Return the beginnings of the paths of Python's own files and of functrain's."""
    found = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), _PACKAGE)
    return tuple(f"{Path(path)}/" for path in found)
