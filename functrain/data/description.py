"""Describe data for a checkpoint, so that a resumed run can notice that it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from functrain.data.fingerprints import fingerprint
from functrain.data.mixture import MixtureSource
from functrain.data.source import Source


def describe(source: Source) -> dict[str, int | str | None]:
    """Return batches in an epoch, batch size, seed, order and contents, as far as known.

    The position of a run counts batches. If the data changes, a resumed run reads other samples
    at its position: some twice in that epoch, some not at all.
    """
    return {**outline(source), "contents": fingerprint(_innermost(source))}


def outline(source: Source) -> dict[str, int | str | None]:
    """Return batches in an epoch, batch size, seed and order, without a look at the contents."""
    data = _innermost(source)
    return {
        "batches_in_an_epoch": source.length,
        "batch_size": _whole(getattr(data, "batch_size", None)),
        "seed": _whole(getattr(data, "seed", None)),
        "order": _order(data),
    }


def differences(before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, before, now) where two descriptions differ and both know a value."""
    for name in now if isinstance(before, dict) else ():
        # Unknown values, or those that an earlier version did not record, are no difference.
        unknown = name not in before or (name in ("order", "contents") and now[name] is None)
        if not unknown and before[name] != now[name] and before[name] is not None:
            yield name, before[name], now[name]


def _order(data: Any) -> str | None:
    sampler = getattr(data, "sampler", None)
    if sampler is not None:
        return type(sampler).__name__
    shuffle = getattr(data, "shuffle", None)
    return {True: "shuffled", False: "in order"}.get(shuffle) if shuffle in (True, False) else None


def _innermost(source: Any) -> Any:
    if isinstance(source, MixtureSource):
        return source.mixture
    held = getattr(source, "batches", getattr(source, "data", None))
    return _innermost(held) if hasattr(held, "replays") else held


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
