"""Mixture: batches of several sources, drawn by weights."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from functrain.data.choices import Choices
from functrain.data.mixing import MixtureSource
from functrain.data.weights import weights_of
from functrain.errors import MixtureError

if TYPE_CHECKING:
    from functrain.data.source import Source


def named(given: Any) -> Mapping[str, Any]:
    """Sources by name; those of a list are named ``"0"``, ``"1"``, ...

    Raises:
        MixtureError: there are none, or a name is no string.
    """
    if isinstance(given, Mapping):
        named = dict(given)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        named = {str(index): source for index, source in enumerate(given)}
    else:
        raise MixtureError(f"sources must be a dict by name or a list, got {type(given).__name__}")
    if not named or not all(isinstance(name, str) for name in named):
        raise MixtureError(f"sources must be one or more, named by strings, got {list(named)}")
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
        MixtureError: weights and sources do not fit, or a length is needed and not known.
        NotBatchesError: a source does not give batches.

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
                raise MixtureError(f"length must be an int of at least 1, got {self.length!r}")
            return self.length
        lengths = self._lengths()
        unknown = [name for name, length in lengths.items() if length is None]
        if unknown:
            raise MixtureError(
                f"the sources {unknown} do not tell how many batches they have: give the mixture "
                "an epoch of its own, Mixture(..., length=batches)"
            )
        return sum(length for length in lengths.values() if length is not None)

    def _lengths(self) -> dict[str, int | None]:
        return {name: source.length for name, source in self.opened().items()}

    def opened(self) -> dict[str, Source]:
        """Each of the sources as a :class:`Source`, made anew."""
        from functrain.data.source import as_source  # which itself knows mixtures

        return {name: as_source(data) for name, data in self.sources.items()}

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        """Epoch 0, once."""
        with contextlib.closing(MixtureSource(self)) as source:
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
