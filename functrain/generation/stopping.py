"""Where a text ends: stop texts found in pieces that arrive one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from functrain.errors import ConfigurationError


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    r"""Pieces of a text up to the first stop text, which is left out.

    What may be the beginning of a stop text is held back until that is known. Of several stop
    texts the one that is complete first counts, so how a text is cut into pieces does not matter.

    Args:
        pieces: of the text.
        stop: texts that end it; there may be none.

    Yields:
        Pieces that are not empty; no further piece is asked for once a stop text was found.

    Raises:
        ConfigurationError: a stop text is empty.

    Example:
        >>> list(until(["one", ". t", "wo.\n", "three"], [".\n"]))
        ['one', '. t', 'wo']
    """
    if not all(stop):
        raise ConfigurationError("a stop text is empty, which every text begins with")
    held = ""
    for piece in pieces:
        held += piece
        begin = _begin(held, stop)
        ready = len(held) - _held_back(held, stop) if begin is None else begin
        if ready:
            yield held[:ready]
        if begin is not None:
            return
        held = held[ready:]
    if held:
        yield held


def _begin(text: str, stop: Sequence[str]) -> int | None:
    """Where the stop text begins that is complete first, the longest of several."""
    found = [(text.find(ending) + len(ending), text.find(ending)) for ending in stop]
    return min(((end, begin) for end, begin in found if begin >= 0), default=(0, None))[1]


def _held_back(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    lengths = (n for ending in stop for n in range(1, len(ending)) if text.endswith(ending[:n]))
    return max(lengths, default=0)
