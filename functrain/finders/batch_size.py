"""Find the largest batch that fits into memory, and the speed at each batch size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import attrs
import torch

from functrain import tree
from functrain.core.batch import Batch, size
from functrain.core.program import Program
from functrain.core.state import TrainState
from functrain.errors import ConfigurationError, FinderError
from functrain.tree import containers, objects

_REFINED = 8
_FUNCTION = "Give a function (samples) -> batch instead."


@attrs.frozen
class BatchSizes:
    """The result of a search for the batch size.

    Attributes:
        largest: the largest size that fitted.
        speeds: samples per second by size, for all sizes that fitted.
        failed: sizes that did not fit.
    """

    largest: int
    speeds: dict[int, float]
    failed: tuple[int, ...]

    @property
    def fastest(self) -> int:
        """The size with the most samples per second."""
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

    The search doubles the size from ``start``, and then bisects between the largest size that
    fitted and the smallest that did not, to an eighth of the former. All steps start from the
    same state, and their results are discarded, so the search needs a little more memory than
    ``fit``, which updates the state in place.

    Args:
        program: the program to train.
        state: a state on the device to use; not changed.
        batch: a function (samples) -> batch, or a batch whose samples are repeated.
        start: the first size.
        limit: the largest size to try.
        repeats: timed steps at each size after an untimed one; the fastest counts.

    Returns:
        The sizes and their speeds.

    Raises:
        ConfigurationError: ``start`` or ``limit`` is invalid, or the batch has no samples or
            an unknown layout.
        FinderError: a batch of ``start`` samples does not fit.

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
    """Bisect between a size that fits and one that does not, to an eighth of the former."""
    grain = max(low // _REFINED, 1)
    while high - low > grain:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)


def _speed(
    program: Program, state: TrainState, batch_of: Callable[[int], Batch], size: int, repeats: int
) -> float | None:
    """Return samples per second, or ``None`` if memory runs out."""
    try:
        batch = batch_of(size)
        seconds = [_seconds(program, state, batch) for _ in range(repeats + 1)]
    except (RuntimeError, MemoryError) as error:
        from functrain.diagnosis.forward_errors import is_out_of_memory

        if not is_out_of_memory(error):
            raise
    else:
        return size / min(seconds[1:])
    # Not in the except block, where the exception still holds the tensors of its frames.
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
    """Return a function that makes batches of any size from the samples of one."""
    samples = size(batch)
    if samples is None:
        from functrain.diagnosis.batches import why_unknown

        raise ConfigurationError(
            "find_batch_size repeats the samples of a batch, and it is not evident which they are: "
            f"{why_unknown(batch)}. {_FUNCTION}"
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
