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

    Args:
        source: the training data of ``fit``.

    Example:
        >>> from functrain.data import as_source
        >>> described = describe(as_source([1, 2, 3]))
        >>> described["batches_in_an_epoch"], described["batch_size"], described["seed"]
        (3, None, None)
    """
    return {**outline(source), "contents": fingerprint(_innermost(source))}


def outline(source: Source) -> dict[str, int | str | None]:
    """Return batches in an epoch, batch size, seed and order, without a look at the contents.

    Args:
        source: the training data of ``fit``.
    """
    data = _innermost(source)
    return {
        "batches_in_an_epoch": source.length,
        "batch_size": _whole(getattr(data, "batch_size", None)),
        "seed": _whole(getattr(data, "seed", None)),
        "order": _order(data),
    }


def differences(before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences between two descriptions, where both know a value.

    Yields:
        (name, before, now).
    """
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
