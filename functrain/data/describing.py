"""What a checkpoint says of the data: what the meaning of a position in it depends on."""

from __future__ import annotations

from typing import Any

from functrain.data.source import Source


def describe(source: Source) -> dict[str, int | None]:
    """Batches in an epoch, batch size and seed, as far as the data has them.

    A position counts batches, so that a run that goes on with others reads other samples than it
    would have: some twice, some not at all in that epoch.

    Args:
        source: of ``fit``.

    Example:
        >>> from functrain.data import as_source
        >>> describe(as_source([1, 2, 3]))
        {'batches_in_an_epoch': 3, 'batch_size': None, 'seed': None}
    """
    data = _innermost(source)
    return {
        "batches_in_an_epoch": source.length,
        "batch_size": _whole(getattr(data, "batch_size", None)),
        "seed": _whole(getattr(data, "seed", None)),
    }


def _innermost(source: Any) -> Any:
    held = getattr(source, "batches", getattr(source, "data", None))
    return _innermost(held) if hasattr(held, "replays") else held


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
