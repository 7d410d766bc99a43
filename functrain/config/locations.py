"""The locations of the values of a configuration, for error messages."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from functrain.errors import ConfigError, FunctrainError

T = TypeVar("T")
_LONGEST = 500  # characters in a message

# "file:line" by dotted key; empty for values from the command line.
Places = Mapping[str, str]


def join_key(*parts: object) -> str:
    """Join parts to a dotted key, omitting empty ones.

    Example:
        >>> join_key("", "optimizer", 0, "lr")
        'optimizer.0.lr'
    """
    return ".".join(text for text in map(str, parts) if text)


def location_of(where: str, places: Places) -> str:
    """Return the location of a key, or of its nearest parent that has one.

    Example:
        >>> location_of("fit.until", {"fit": "run.yaml:3"}), location_of("seed", {})
        ('run.yaml:3', '')
    """
    while where and where not in places:
        where = where.rpartition(".")[0]
    return places.get(where, "")


@contextlib.contextmanager
def add_location(places: Places) -> Iterator[None]:
    """Prefix errors in the block with the file and the line of their key."""
    try:
        yield
    except ConfigError as error:
        place = location_of(error.where or "", places)
        if not place:
            raise
        raise ConfigError(f"{place}: {error}") from error


def build_key(where: str, make: Callable[[], T]) -> T:
    """Return the result of ``make``; errors of functrain become one line with the key."""
    try:
        return make()
    except ConfigError:
        raise
    except (FunctrainError, ValueError) as error:
        sentence = textwrap.shorten(str(error), _LONGEST, placeholder=" ...")
        raise ConfigError(sentence, where) from error
