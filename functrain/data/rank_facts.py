"""The facts about data that must be equal on all ranks before they read them together."""

from __future__ import annotations

from collections.abc import Iterator

from xxhash import xxh3_128_hexdigest

from functrain.core.batch_splitting import part_sizes
from functrain.data.description import describe
from functrain.data.fingerprints import fingerprint
from functrain.data.mixture import MixtureSource
from functrain.data.parts import BatchesByParts
from functrain.data.seeded_iteration import generator_states
from functrain.data.source import Source


def facts(source: Source) -> dict[str, str | int]:
    """Return named facts about the data of a rank; any that differ show ranks with other data.

    ``BatchParts.digest`` shows a difference that begins later. Nothing is drawn from data that
    keep a position; of ``Batches`` without workers every rank reads the first part.
    """
    found: dict[str, str | int] = {}
    for name, value in describe(source).items():
        title = f"{name.replace('_', ' ')} of the data"
        found[title] = value if isinstance(value, int) else str(value)
    for place, held in _innermost(source):
        if isinstance(held, BatchesByParts):
            found[f"first batch of the data{place}"] = _first_part(held)
        elif states := generator_states(getattr(held, "data", None)):
            found[f"random generators of the data{place}"] = str(fingerprint([states]))
        if isinstance(held, MixtureSource):
            found[f"draws of the data{place}"] = ", ".join(held.mixture.names(0, 16))
    return found


def _innermost(source: Source, place: str = "") -> Iterator[tuple[str, Source]]:
    """Yield a source and those in it, each with its place."""
    yield place, source
    held = getattr(source, "data", None)
    if isinstance(held, Source):
        yield from _innermost(held, place)
    if isinstance(source, MixtureSource):
        for name, inner in source.opened().items():
            yield from _innermost(inner, f"{place} in source {name!r}")


def _first_part(source: BatchesByParts) -> str:
    """Return a fingerprint of the order of the first batch, and of its first part where it can be.

    A dataset with workers may hold files that must be opened in these only.
    """
    batches = source.batches
    samples = batches.indices(0, 0)
    order = xxh3_128_hexdigest(samples.numpy().tobytes())[:16]
    if batches.workers:
        return order
    first = samples[: part_sizes(len(samples), source.sharing.parts)[0]]
    return f"{order} {fingerprint([batches.read(0, 0, first, 0)])}"
