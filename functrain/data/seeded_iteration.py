"""Iterate over a user's loader reproducibly.

A loader may draw from the global generators of torch, Python or NumPy at any call: for its order,
for the seeds of its workers, for augmentation. Here each call finds them seeded by its position,
and they are restored afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from torch.utils.data import DataLoader

from functrain.core.global_generators import sample_scope
from functrain.core.rng import derive
from functrain.data.reading_errors import is_of_dead_worker, refuse_stop, worker_died
from functrain.errors import DataChangedError, EmptyDatasetError

END: Any = object()


def length_of(data: Any) -> int | None:
    """Return the number of batches in an epoch, or ``None`` if the data has no length."""
    try:
        return len(data)
    except (TypeError, NotImplementedError):
        return None


class SeededPass:
    """A pass over a loader, in which each draw finds the generators seeded by its place.

    Attributes:
        index: number of batches drawn.
        is_longer: whether more batches were drawn than the length given to ``remaining``.
    """

    def __init__(
        self, batches: Iterator[Any], seed: int, epoch: int, index: int = 0, data: Any = None
    ) -> None:
        self._batches, self._place, self.index = batches, (seed, epoch), index
        self._data = batches if data is None else data
        self.is_longer = False

    @classmethod
    def begin(cls, data: Any, seed: int, epoch: int, index: int = 0) -> SeededPass:
        """Start a pass over the data, whose first batch is number ``index``.

        Calls ``set_epoch`` where it exists, as in distributed samplers and streamed datasets.
        """
        parts = [getattr(data, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        for part in (*parts, data):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(epoch)
        with sample_scope() as scope:
            scope.seed(derive(seed, "loader", epoch))
            return cls(iter(data), seed, epoch, index, data)

    def draw(self) -> Any:
        """Return the next batch, or ``END``."""
        seed, epoch = self._place
        with sample_scope() as scope:
            scope.seed(derive(seed, "loader", epoch, self.index))
            try:
                batch = next(self._batches)
            except StopIteration as stop:
                refuse_stop(stop, self._data, f"reading {self._named()}")
                return END
            except Exception as error:
                reads_ahead = isinstance(self._data, DataLoader) and self._data.num_workers
                if reads_ahead and is_of_dead_worker(error):
                    raise worker_died(error) from error
                error.add_note(f"(while reading {self._named()} of a {type(self._data).__name__})")
                raise
        self.index += 1
        return batch

    def _named(self) -> str:
        return f"batch {self.index} of epoch {self._place[1]}"

    def drop(self, stop: int) -> None:
        """Draw and discard the batches before ``stop``."""
        while self.index < stop:
            if self.draw() is END:
                raise DataChangedError(
                    f"the state stands after {stop} batches of epoch {self._place[1]}, but that "
                    f"epoch of the data ends after {self.index}. Give the data the run was started "
                    "with. If these are whole epochs that were stepped by hand, count each at its "
                    "end, state = attrs.evolve(state, counters=state.counters.next_epoch()), or "
                    "give the data a length (__len__), so that they can be counted."
                )

    def remaining(self, length: int | None, at_end: Callable[[int], None]) -> Iterator[Any]:
        """Yield the other batches, and call ``at_end`` with the number of all at the end.

        If the length is known, the end is reached before the last batch is yielded. A state saved
        after that batch is then the one in which the next epoch begins.
        """
        batch = self.draw()
        while batch is not END:
            following = self.draw() if self.index == length else None
            if following is END:
                at_end(self.index)
            self.is_longer = following is not None and following is not END
            yield batch
            if following is END:
                return
            batch = self.draw() if following is None else following
        at_end(self.index)


def refuse_empty(data: Any, epoch: int) -> NoReturn:
    """Raise an error for an epoch without batches."""
    kind = type(data).__name__
    if isinstance(data, Iterator):
        why = f"this {kind} was read to its end before; give something that can be iterated again"
    else:
        why = f"check what this {kind} yields each time it is iterated"
    raise EmptyDatasetError(f"the data gave no batch in epoch {epoch}: {why}")
