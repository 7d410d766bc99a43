"""End a text at a stop text, found in pieces that arrive one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from functrain.errors import ConfigurationError


def until(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    r"""Yield the pieces of a text up to the first stop text, which is excluded.

    A possible beginning of a stop text is held back until the next piece decides. Of several stop
    texts the first complete one counts, so the result does not depend on the division into pieces.

    Args:
        pieces: the pieces of the text.
        stop: stop texts, possibly none.

    Yields:
        Pieces that are not empty. After a stop text, no further piece is read.

    Raises:
        ConfigurationError: a stop text is empty.

    Example:
        >>> list(until(["one", ". t", "wo.\n", "three"], [".\n"]))
        ['one', '. t', 'wo']
    """
    if not all(stop):
        raise ConfigurationError("a stop text is empty, and every text begins with it")
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
    """Return the start of the first complete stop text, the longest of several."""
    found = [(text.find(ending) + len(ending), text.find(ending)) for ending in stop]
    return min(((end, begin) for end, begin in found if begin >= 0), default=(0, None))[1]


def _held_back(text: str, stop: Sequence[str]) -> int:
    """Count the characters at the end of a text that may begin a stop text."""
    lengths = (n for ending in stop for n in range(1, len(ending)) if text.endswith(ending[:n]))
    return max(lengths, default=0)
