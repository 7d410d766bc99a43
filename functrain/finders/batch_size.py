"""The largest batch that fits into memory, and how fast batches of each size are."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import attrs
import torch

from functrain import tree
from functrain.core import sizes, unknown_sizes
from functrain.core.batch import Batch
from functrain.core.out_of_memory import is_out_of_memory
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, FinderError
from functrain.tree import containers, objects

_REFINED = 8
_FUNCTION = "Give a function (samples) -> batch in its place."


@attrs.frozen
class BatchSizes:
    """What a search for the batch size saw.

    Attributes:
        largest: the largest size that fitted.
        speeds: samples a second by size, for all that fitted.
        failed: sizes that did not fit.
    """

    largest: int
    speeds: dict[int, float]
    failed: tuple[int, ...]

    @property
    def fastest(self) -> int:
        """The size with the most samples a second."""
        return max(self.speeds, key=self.speeds.__getitem__)


def find_batch_size(
    program: Program,
    state: TrainState,
    batch: Batch | Callable[[int], Batch],
    *,
    start: int = 1,
    limit: int = 65536,
    repeats: int = 3,
) -> BatchSizes:
    """Try steps with larger and larger batches until one does not fit into memory.

    Sizes are doubled from ``start`` on; between the last that fitted and the first that did not,
    the search is refined to an eighth. Steps are made from the same state and thrown away, so a
    little more memory is used than by ``fit``, which writes over a state that nobody else holds.

    Args:
        program: what is to be trained.
        state: on the device that counts; not changed.
        batch: (samples) -> batch; or a batch, whose samples are repeated.
        start: the first size.
        limit: no larger size is tried.
        repeats: timed steps at each size, after one that is not; the fastest counts.

    Returns:
        The sizes and their speeds.

    Raises:
        ConfigurationError: ``start`` and ``limit`` make no sense, the batch has no samples, or it
            is not evident how to repeat them.
        FinderError: not even ``start`` fits.

    Example:
        >>> import functrain as ft
        >>> loss = lambda model, x: model(x).square().mean()
        >>> program = ft.program(torch.nn.Linear(2, 1), loss, ft.optim.SGD(lr=0.1))
        >>> found = find_batch_size(program, program.init(), torch.ones(1, 2), limit=16)
        >>> found.largest, list(found.speeds)
        (16, [1, 2, 4, 8, 16])
    """
    if not 1 <= start <= limit or repeats < 1:
        raise ConfigurationError(
            f"find_batch_size expects 1 <= start <= limit and repeats from 1, got start={start}, "
            f"limit={limit}, repeats={repeats}"
        )
    batch_of = batch if callable(batch) else _repeating(batch)
    plain = attrs.evolve(program, donates=False)
    speeds: dict[int, float] = {}
    failed: list[int] = []

    def fits(size: int) -> bool:
        speed = _speed(plain, state, batch_of, size, repeats)
        if speed is None:
            failed.append(size)
        else:
            speeds[size] = speed
        return speed is not None

    size = start
    while size <= limit and fits(size):
        size *= 2
    if not speeds:
        raise FinderError(
            f"a batch of {start} does not fit into memory: begin with a smaller start="
        )
    if failed:
        _refine(fits, max(speeds), min(failed))
    return BatchSizes(max(speeds), dict(sorted(speeds.items())), tuple(sorted(failed)))


def _refine(fits: Callable[[int], bool], low: int, high: int) -> None:
    """Halve the distance between what fits and what does not, down to an eighth of the former."""
    grain = max(low // _REFINED, 1)
    while high - low > grain:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)


def _speed(
    program: Program,
    state: TrainState,
    batch_of: Callable[[int], Batch],
    size: int,
    repeats: int,
) -> float | None:
    """Samples a second; ``None`` where the memory does not suffice."""
    try:
        batch = batch_of(size)
        seconds = [_seconds(program, state, batch) for _ in range(repeats + 1)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return size / min(seconds[1:])
    # Here, where the exception no longer holds the tensors of its frames.
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return None


def _seconds(program: Program, state: TrainState, batch: Batch) -> float:
    _wait(state.device)
    begin = time.perf_counter()
    after = program.train_step(state, batch)
    _wait(state.device)
    del after
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _repeating(batch: Batch) -> Callable[[int], Batch]:
    """Batches of any size from the samples of one."""
    samples = sizes.size(batch)
    if samples is None:
        raise ConfigurationError(
            "find_batch_size repeats the samples of a batch, and it is not evident which they are: "
            f"{unknown_sizes.reason(batch)}. {_FUNCTION}"
        )
    if not samples:
        raise ConfigurationError("find_batch_size was given a batch without samples")

    def of(size: int) -> Batch:
        return _repeated(batch, samples, [index % samples for index in range(size)])

    return of


def _repeated(batch: Batch, samples: int, order: list[int]) -> Batch:
    if isinstance(batch, torch.Tensor):
        return batch[order] if batch.ndim and len(batch) == samples else batch
    if isinstance(batch, list | tuple) and len(batch) == samples and not _has_tensors(batch):
        return type(batch)([batch[index] for index in order])
    if containers.is_structure(batch) and not objects.is_registered(batch):
        children = [_repeated(child, samples, order) for _, child in containers.children(batch)]
        return containers.rebuild(batch, children)
    if containers.is_container(batch):
        kind = type(batch).__qualname__
        raise ConfigurationError(
            f"find_batch_size cannot repeat the samples of a {kind}. {_FUNCTION}"
        )
    return batch


def _has_tensors(batch: Batch) -> bool:
    return any(isinstance(leaf, torch.Tensor) for _, leaf in tree.items(batch))
