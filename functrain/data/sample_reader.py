"""Read a dataset sample by sample, each with its own random streams."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch

from functrain.core.global_generators import sample_scope
from functrain.core.rng import derive, turn
from functrain.data.hugging_face import Rows
from functrain.data.reading_errors import stopped
from functrain.errors.optional import require


@attrs.frozen(eq=False)
class SampleReader:
    """Makes batches from single samples."""

    dataset: Any
    transform: Callable[..., Any] | None
    collate: Callable[[list[Any]], Any]
    seed: int
    # "generator" or "rng", where the transform takes one.
    _asks_for: str | None = attrs.field(init=False)

    @_asks_for.default
    def _look_at_transform(self) -> str | None:
        return None if self.transform is None else _generator_parameter(self.transform)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, epoch: int, index: int, indices: Sequence[int], part: int | None = None) -> Any:
        """Make one batch.

        Before each sample, the generators of torch, Python and NumPy are seeded, so its random
        numbers depend only on the seed, the epoch and its index. An error of the user's code gets
        a note with the sample and epoch.

        ``part`` is the number of a part of the batch that is collated apart, with a random stream
        of its own.
        """
        place_in_epoch = (epoch, index) if part is None else (epoch, index, part)
        with turn(), sample_scope() as scope, _Place(epoch, index, self.dataset) as place:
            together = self._together(indices)
            samples = []
            for order, sample in enumerate(indices):
                place.sample = sample
                scope.seed(derive(self.seed, "sample", epoch, sample))
                value = self.dataset[sample] if together is None else together[order]
                samples.append(self._transformed(value, epoch, sample))
            place.sample = None
            scope.seed(derive(self.seed, "collate", *place_in_epoch))
            return self.collate(samples)

    def _together(self, indices: Sequence[int]) -> Sequence[Any] | None:
        """Read all samples at once if this is known to draw no random numbers."""
        return self.dataset.__getitems__(indices) if isinstance(self.dataset, Rows) else None

    def _transformed(self, value: Any, epoch: int, sample: int) -> Any:
        if self.transform is None:
            return value
        if self._asks_for is None:
            return self.transform(value)
        seed = derive(self.seed, "transform", epoch, sample)
        if self._asks_for == "generator":
            return self.transform(value, generator=torch.Generator().manual_seed(seed))
        return self.transform(value, rng=require("numpy.random", "examples").default_rng(seed))


def _generator_parameter(transform: Callable[..., Any]) -> str | None:
    """Return the name of the parameter of a transform for a generator, if it has one."""
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have no signature
        return None
    # The first parameter is the sample, whatever its name.
    named = [p.name for p in [*parameters][1:] if p.kind not in (p.POSITIONAL_ONLY, p.VAR_KEYWORD)]
    return next((name for name in ("generator", "rng") if name in named), None)


class _Place:
    """Adds to an exception a note about the sample that was being read."""

    __slots__ = ("dataset", "epoch", "index", "sample")

    def __init__(self, epoch: int, index: int, dataset: Any) -> None:
        self.epoch = epoch
        self.index = index
        self.dataset = dataset
        self.sample: int | None = None

    def __enter__(self) -> _Place:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            what = "collating" if self.sample is None else f"reading sample {self.sample} for"
            place = f"while {what} batch {self.index} of epoch {self.epoch}"
            if isinstance(error, StopIteration):
                raise stopped(type(self.dataset).__name__, place) from error
            error.add_note(f"({place})")
