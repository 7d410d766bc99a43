"""Where the values of a configuration were written, so that errors can say it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from functrain.errors import ConfigError

# By dotted key, "file:line"; empty for what came from the command line.
Places = Mapping[str, str]


def joined(*parts: object) -> str:
    """A dotted key of its parts; empty ones are left out.

    Example:
        >>> joined("", "optimizer", 0, "lr")
        'optimizer.0.lr'
    """
    return ".".join(text for text in map(str, parts) if text)


def place_of(where: str, places: Places) -> str:
    """The place of a key, or of the nearest one above it that has any.

    Example:
        >>> place_of("fit.until", {"fit": "run.yaml:3"}), place_of("seed", {})
        ('run.yaml:3', '')
    """
    while where and where not in places:
        where = where.rpartition(".")[0]
    return places.get(where, "")


@contextlib.contextmanager
def located(places: Places) -> Iterator[None]:
    """Let errors in the block begin with file and line of the key they name."""
    try:
        yield
    except ConfigError as error:
        place = place_of(error.where or "", places)
        if not place:
            raise
        raise ConfigError(f"{place}: {error}") from error
