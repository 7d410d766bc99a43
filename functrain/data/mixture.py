"""Mix batches of several sources, drawn by weights."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from functrain.core.rng import derive
from functrain.data.source import Source, as_source, take_seed
from functrain.data.weights import AnyWeights, WeightedDraws, weights_of
from functrain.errors import ConfigurationError, DataChangedError, EmptyDatasetError
from functrain.errors.calls import explained
from functrain.errors.validators import integer

_END: Any = object()
_KEPT = 4  # epochs of a source to remember: an unfinished step may reach back into them


def named(given: Mapping[str, Any] | Sequence[Any]) -> Mapping[str, Any]:
    """Return sources by name; those of a list are named ``"0"``, ``"1"``, ..."""
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        named = {str(index): source for index, source in enumerate(given)}
    else:
        raise ConfigurationError(
            f"sources: expected a dict by name or a list, got {type(given).__name__}"
        )
    if not named or not all(isinstance(name, str) for name in named):
        raise ConfigurationError(
            f"sources: expected one or more named by strings, got {list(named)}"
        )
    return named


@explained
@attrs.frozen(eq=False, repr=False)
class Mixture:
    """Several sources of data; each batch comes from one of them.

    The source of batch k is a pure function of the seed and k. Each source yields its batches in
    its own order and starts its next epoch independently. An epoch of the mixture is only a number
    of batches.

    Args:
        sources: the data by name, or a list of them, named ``"0"``, ``"1"``, ...; each is
            any kind of data that ``fit`` accepts.
        weights: how often each is drawn: ``"uniform"``; ``"proportional"`` to the batches in its
            epoch; a list or a dict by name; ``ft.data.Temperature(T)``;
            ``ft.data.Interpolated({batch: weights, ...})``; or a pure function from the index of
            the batch (counted over all epochs) to a list or dict.
        seed: root seed of the draws. The sources have their own seeds, by default 0.
        length: batches in an epoch; by default the sum over an epoch of each source.
        with_names: yield ``(name, batch)``, so that a loss can distinguish the sources.

    Raises:
        ConfigurationError: weights and sources do not match, or an unknown length is needed.
        UnsupportedError: a source does not yield batches.

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
    weights: AnyWeights = attrs.field(default="proportional", kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True, converter=operator.index)
    length: int | None = attrs.field(default=None, kw_only=True)
    with_names: bool = attrs.field(default=False, kw_only=True)
    choices: WeightedDraws = attrs.field(init=False)
    batches: int = attrs.field(init=False)

    @choices.default
    def _make_choices(self) -> WeightedDraws:
        lengths = self._lengths()
        weights = weights_of(self.weights, list(lengths), list(lengths.values()))
        return WeightedDraws(weights, len(lengths), self.seed)

    @batches.default
    def _count(self) -> int:
        if self.length is not None:
            integer(minimum=1).check("length", self.length)
            return int(self.length)
        lengths = self._lengths()
        unknown = [name for name, length in lengths.items() if length is None]
        if unknown:
            raise ConfigurationError(
                f"the number of batches in the sources {unknown} is unknown: give the mixture a "
                "length, Mixture(..., length=batches)"
            )
        return sum(length for length in lengths.values() if length is not None)

    def _lengths(self) -> dict[str, int | None]:
        return {name: source.length for name, source in self.opened().items()}

    def opened(self) -> dict[str, Source]:
        """Return each of the sources as a new :class:`Source`."""
        opened = {name: as_source(data) for name, data in self.sources.items()}
        for source in opened.values():
            take_seed(source, 0)
        return opened

    def to_source(self) -> MixtureSource:
        """Return the mixture as a :class:`Source`; :func:`as_source` calls this."""
        return MixtureSource(self)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        """Iterate over epoch 0 once."""
        with contextlib.closing(self.to_source()) as source:
            yield from source.epoch(0, 0, 0, None)

    def names(self, start: int, stop: int) -> list[str]:
        """Return the sources of the batches ``start`` to ``stop - 1``, counted over all epochs."""
        names = list(self.sources)
        return [names[choice] for choice in self.choices.between(start, stop).tolist()]

    def drawn(self, batch: int) -> dict[str, int]:
        """Return how many of the batches before ``batch`` come from each source."""
        return dict(zip(self.sources, self.choices.counts(batch), strict=True))

    def probabilities(self, batch: int = 0) -> dict[str, float]:
        """Return the probability of each source for a batch, counted over all epochs."""
        weights = self.choices.weights(batch, batch + 1)[0]
        return dict(zip(self.sources, (weights / weights.sum()).tolist(), strict=True))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name}={share:.4g}" for name, share in self.probabilities().items())
        constant = len(self.choices.weights(0, 2)) == 1
        return (
            f"Mixture({shares}{'' if constant else ' at first'}; {len(self)} batches an epoch, "
            f"drawn by seed {self.seed})"
        )


@attrs.define(eq=False)
class MixtureSource:
    """A mixture as a source, which resumes immediately from its saved state.

    Without a saved state, as in a user's own loop, the positions of the sources are found by
    counting the draws, and sources of unknown length are read up to there.
    """

    mixture: Mixture
    _cursors: dict[str, SourceCursor] = attrs.field(init=False)
    _draw: int | None = None

    @_cursors.default
    def _make_cursors(self) -> dict[str, SourceCursor]:
        sources = self.mixture.opened()
        return {name: SourceCursor(source, seed=0) for name, source in sources.items()}

    @property
    def length(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.mixture)

    @property
    def replays(self) -> bool:
        """Whether one of the sources replays."""
        return any(cursor.source.replays for cursor in self._cursors.values())

    def opened(self) -> dict[str, Source]:
        """Return the sources that batches are drawn from, by name."""
        return {name: cursor.source for name, cursor in self._cursors.items()}

    def epoch(self, seed: int, epoch: int, start: int, saved: Any) -> Iterator[Any]:
        """Yield the batches of an epoch from ``start`` on."""
        draw = epoch * self.length + start
        if saved is not None:
            self._restore(seed, draw, saved)
        elif draw != self._draw:
            self._seek(seed, draw)
        self._draw = draw
        return self._batches(draw, (epoch + 1) * self.length)

    def _batches(self, draw: int, stop: int) -> Iterator[Any]:
        for name in self._names(draw, stop):
            batch = self._named(name, self._cursors[name].next())
            self._draw = draw = draw + 1
            yield batch

    def _named(self, name: str, batch: Any) -> Any:
        return (name, batch) if self.mixture.with_names else batch

    def _names(self, draw: int, stop: int) -> Iterator[str]:
        while draw < stop:
            following = min(draw + 4096, stop)
            yield from self.mixture.names(draw, following)
            draw = following

    def _seek(self, seed: int, draw: int) -> None:
        self._begin(seed)
        for name, count in self.mixture.drawn(draw).items():
            self._cursors[name].seek(count)

    def _restore(self, seed: int, draw: int, saved: dict[str, Any]) -> None:
        if list(saved["sources"]) != list(self._cursors) or draw > saved["draw"]:
            raise DataChangedError(
                f"the run was saved at batch {saved['draw']} of a mixture of "
                f"{list(saved['sources'])}; now it stands at batch {draw} of one of "
                f"{list(self._cursors)}. Give the mixture the run was started with."
            )
        self._begin(seed)
        # The state may have been saved after batches whose step did not complete: rewind these.
        since = self.mixture.names(draw, saved["draw"])
        for name, own in saved["sources"].items():
            self._cursors[name].restore(own, own["count"] - since.count(name))

    def _begin(self, seed: int) -> None:
        self.close()
        for name, source in self.opened().items():
            self._cursors[name] = SourceCursor(source, derive(seed, "mixture", name))

    def state(self) -> Any:
        """Return position and state of each source, or ``None`` before the first epoch."""
        if self._draw is None:
            return None
        sources = {name: cursor.state() for name, cursor in self._cursors.items()}
        return {"draw": self._draw, "sources": sources}

    def close(self) -> None:
        """End the worker processes of all sources."""
        for cursor in self._cursors.values():
            cursor.source.close()
        self._draw = None


@attrs.frozen(eq=False)
class EpochStart:
    """The start of an epoch: number of batches read before it, and the source's state."""

    epoch: int
    count: int
    state: Any = None


@attrs.define(eq=False)
class SourceCursor:
    """One source of a mixture and the position in it.

    Attributes:
        epochs: the starts of its last epochs.
    """

    source: Source
    seed: int
    count: int = 0
    epochs: list[EpochStart] = attrs.field(factory=lambda: [EpochStart(0, 0)])
    _rest: Iterator[Any] | None = None
    _saved: Any = None

    def seek(self, count: int) -> None:
        """Go to the position after ``count`` batches without a saved state."""
        length = self.source.length
        if length:
            self.count, self.epochs = count, [EpochStart(count // length, count - count % length)]
            return
        while self.count < count:
            self.next()

    def next(self) -> Any:
        """Return the next batch, starting the next epoch at the end of this one."""
        if self.count - self.epochs[-1].count == self.source.length:
            self._next_epoch()
        batch = next(self._opened(), _END)
        if batch is _END:
            # The epoch ended although its length was unknown or said otherwise.
            self._next_epoch()
            batch = next(self._opened(), _END)
        if batch is _END:
            raise EmptyDatasetError(
                f"a source of the mixture gave no batch in its epoch {self.epochs[-1].epoch}: "
                f"{type(self.source).__name__}. Remove it, or check what it reads"
            )
        self.count += 1
        return batch

    def _next_epoch(self) -> None:
        following = EpochStart(self.epochs[-1].epoch + 1, self.count, self._state())
        self.epochs, self._rest = [*self.epochs[1 - _KEPT :], following], None

    def _opened(self) -> Iterator[Any]:
        if self._rest is None:
            begin, saved = self.epochs[-1], self._saved
            self._rest = self.source.epoch(self.seed, begin.epoch, self.count - begin.count, saved)
            self._saved = None
        return self._rest

    def _state(self) -> Any:
        # The source has not read a restored state yet, so it is still the current one.
        return self.source.state() if self._saved is None else self._saved

    def state(self) -> dict[str, Any]:
        """Return the state for :meth:`restore`."""
        # Checkpoints hold the key "turns", so it must not change.
        starts = [attrs.asdict(start, recurse=False) for start in self.epochs]
        return {"count": self.count, "turns": starts, "state": self._state()}

    def restore(self, saved: dict[str, Any], count: int) -> None:
        """Go to the position after ``count`` batches, at most as many as when it was saved."""
        starts = [EpochStart(**start) for start in saved["turns"]]
        past = [start for start in starts if start.count <= count]
        if not past and saved["state"] is None and self.source.length:
            self.seek(count)
            return
        if not past:
            raise DataChangedError(
                f"the saved state of a source of a mixture begins with its batch "
                f"{starts[0].count}, and the run stands at its batch {count}"
            )
        # The state at the end of an epoch, from which its batches can be replayed, is stored at
        # the start of the next one.
        states = [*(start.state for start in starts[1:]), saved["state"]]
        self.count, self.epochs, self._saved = count, past, states[len(past) - 1]
