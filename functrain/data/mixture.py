"""Mixture: batches of several sources, drawn by weights."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from functrain.core.rng import derive
from functrain.data.choices import Choices
from functrain.data.mixing import Cursor
from functrain.data.source import Source, as_source
from functrain.data.weights import weights_of
from functrain.errors import ConfigurationError, DataChangedError


def named(given: Any) -> Mapping[str, Any]:
    """Sources by name; those of a list are named ``"0"``, ``"1"``, ...

    Raises:
        ConfigurationError: there are none, or a name is no string.
    """
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        named = {str(index): source for index, source in enumerate(given)}
    else:
        raise ConfigurationError(
            f"sources must be a dict by name or a list, got {type(given).__name__}"
        )
    if not named or not all(isinstance(name, str) for name in named):
        raise ConfigurationError(
            f"sources must be one or more, named by strings, got {list(named)}"
        )
    return named


@attrs.frozen(eq=False, repr=False)
class Mixture:
    """Several kinds of data, of which each batch takes one.

    Which source gives batch k is a pure function of the seed and k. Each source goes its own way:
    it gives its own batches in their order and, when it is through, begins its next epoch. An
    epoch of the mixture is a number of batches and nothing else.

    Args:
        sources: the data by name, or a list of them, named ``"0"``, ``"1"``, ...; each is
            anything that ``fit`` takes for data.
        weights: how often each is drawn: ``"uniform"``; ``"proportional"`` to the batches in its
            epoch; a list or a dict by name; ``ft.data.Temperature(T)``;
            ``ft.data.Interpolated({batch: weights, ...})``; or a pure function of the number of
            the batch (counted over all epochs), which gives a list or dict.
        seed: root seed of the draws. The sources have their own.
        length: batches in an epoch; by default all those in an epoch of each source.
        with_names: give ``(name, batch)``, so that a loss can tell the sources.

    Raises:
        ConfigurationError: weights and sources do not fit, or a length is needed and not known.
        UnsupportedError: a source does not give batches.

    Example:
        >>> a, b = [1, 2, 3], [10, 20, 30]
        >>> mixture = Mixture({"a": a, "b": b}, weights={"a": 0.7, "b": 0.3}, with_names=True)
        >>> mixture
        Mixture(a=0.7, b=0.3; 6 batches an epoch, drawn by seed 0)
        >>> list(mixture)
        [('b', 10), ('a', 1), ('a', 2), ('b', 20), ('b', 30), ('a', 3)]
        >>> mixture.drawn(600_000)
        {'a': 420044, 'b': 179956}
    """

    sources: Mapping[str, Any] = attrs.field(converter=named)
    weights: Any = attrs.field(default="proportional", kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True, converter=operator.index)
    length: int | None = attrs.field(default=None, kw_only=True)
    with_names: bool = attrs.field(default=False, kw_only=True)
    choices: Choices = attrs.field(init=False)
    batches: int = attrs.field(init=False)

    @choices.default
    def _make_choices(self) -> Choices:
        lengths = self._lengths()
        weights = weights_of(self.weights, list(lengths), list(lengths.values()))
        return Choices(weights, len(lengths), self.seed)

    @batches.default
    def _count(self) -> int:
        if self.length is not None:
            if not isinstance(self.length, int) or self.length < 1:
                raise ConfigurationError(
                    f"length must be an int of at least 1, got {self.length!r}"
                )
            return self.length
        lengths = self._lengths()
        unknown = [name for name, length in lengths.items() if length is None]
        if unknown:
            raise ConfigurationError(
                f"the sources {unknown} do not tell how many batches they have: give the mixture "
                "an epoch of its own, Mixture(..., length=batches)"
            )
        return sum(length for length in lengths.values() if length is not None)

    def _lengths(self) -> dict[str, int | None]:
        return {name: source.length for name, source in self.opened().items()}

    def opened(self) -> dict[str, Source]:
        """Each of the sources as a :class:`Source`, made anew."""
        return {name: as_source(data) for name, data in self.sources.items()}

    def to_source(self) -> MixtureSource:
        """Return the mixture as a :class:`Source`; :func:`as_source` calls this."""
        return MixtureSource(self)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        """Epoch 0, once."""
        with contextlib.closing(self.to_source()) as source:
            yield from source.epoch(0, 0, 0, None)

    def names(self, start: int, stop: int) -> list[str]:
        """The sources of the batches ``start`` to ``stop - 1``, counted over all epochs."""
        names = list(self.sources)
        return [names[choice] for choice in self.choices.between(start, stop).tolist()]

    def drawn(self, batch: int) -> dict[str, int]:
        """How many of the batches before ``batch`` are each source's."""
        return dict(zip(self.sources, self.choices.counts(batch), strict=True))

    def probabilities(self, batch: int = 0) -> dict[str, float]:
        """How probable each source is for a batch, counted over all epochs."""
        weights = self.choices.weights.at(batch, batch + 1)[0]
        return dict(zip(self.sources, (weights / weights.sum()).tolist(), strict=True))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name}={share:.4g}" for name, share in self.probabilities().items())
        constant = len(self.choices.weights.at(0, 2)) == 1
        return (
            f"Mixture({shares}{'' if constant else ' at first'}; {len(self)} batches an epoch, "
            f"drawn by seed {self.seed})"
        )


@attrs.define(eq=False)
class MixtureSource:
    """A mixture as a source; what it saves makes resumption immediate.

    Without a saved state, as in a loop of one's own, the sources' positions are found by counting
    the draws before, and sources of unknown length are read up to there.
    """

    mixture: Mixture
    _cursors: dict[str, Cursor] = attrs.field(init=False)
    _draw: int | None = None

    @_cursors.default
    def _make_cursors(self) -> dict[str, Cursor]:
        return {name: Cursor(source, seed=0) for name, source in self.mixture.opened().items()}

    @property
    def length(self) -> int:
        """Batches in an epoch."""
        return len(self.mixture)

    @property
    def replays(self) -> bool:
        """Whether one of the sources does."""
        return any(cursor.source.replays for cursor in self._cursors.values())

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """The batches of an epoch from ``start`` on."""
        draw = epoch * self.length + start
        if saved is not None:
            self._restore(seed, draw, saved)
        elif draw != self._draw:
            self._seek(seed, draw)
        self._draw = draw
        return self._batches(draw, (epoch + 1) * self.length)

    def _batches(self, draw: int, stop: int) -> Iterator[Any]:
        for name in self._names(draw, stop):
            batch = self._cursors[name].next()
            self._draw = draw = draw + 1
            yield (name, batch) if self.mixture.with_names else batch

    def _names(self, draw: int, stop: int) -> Iterator[str]:
        while draw < stop:
            following = min(draw + 4096, stop)
            yield from self.mixture.names(draw, following)
            draw = following

    def _seek(self, seed: int, draw: int) -> None:
        self.close()
        for name, count in self.mixture.drawn(draw).items():
            cursor = self._cursors[name]
            self._cursors[name] = Cursor(cursor.source, derive(seed, "mixture", name))
            self._cursors[name].seek(count)

    def _restore(self, seed: int, draw: int, saved: dict[str, Any]) -> None:
        if list(saved["sources"]) != list(self._cursors) or draw > saved["draw"]:
            raise DataChangedError(
                f"the run was saved at batch {saved['draw']} of a mixture of "
                f"{list(saved['sources'])}; now it stands at batch {draw} of one of "
                f"{list(self._cursors)}. Give the mixture the run was started with."
            )
        self.close()
        # Batches may have been drawn whose step was not made.
        since = self.mixture.names(draw, saved["draw"])
        for name, own in saved["sources"].items():
            cursor = Cursor(self._cursors[name].source, derive(seed, "mixture", name))
            cursor.restore(own, own["count"] - since.count(name))
            self._cursors[name] = cursor

    def state(self) -> Any:
        """Where each source stands, with its own state; ``None`` before the first epoch."""
        if self._draw is None:
            return None
        sources = {name: cursor.state() for name, cursor in self._cursors.items()}
        return {"draw": self._draw, "sources": sources}

    def close(self) -> None:
        """End the worker processes of all sources."""
        for cursor in self._cursors.values():
            cursor.source.close()
        self._draw = None
