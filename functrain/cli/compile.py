"""``functrain compile``: compile the step of a configuration, for the runs that follow."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

import functrain as ft
from functrain import config
from functrain.cli import output
from functrain.cli.train import set_torch_options
from functrain.core.batch import Batch
from functrain.core.batch_splitting import MicroBatches
from functrain.errors import ConfigError
from functrain.training.iteration import epoch_batches, source_of
from functrain.training.limits import Limits
from functrain.transforms.compile_cache import cached
from functrain.transforms.graph.device_step import Compiled
from functrain.tree import containers

_NOT_KEPT = (
    "no library is kept for the next process: that needs the backend inductor, no mode, a model on "
    "the CPU, and a cache directory of your own"
)


def compile(source: str, overrides: list[str], console: Console) -> None:
    """Compile the step for the batches of a run, and print what was compiled."""
    loaded = config.load(source, overrides)
    set_torch_options(loaded.config)
    with config.importable(loaded):
        built = config.build(loaded.config)
        program: Any = cached(built.program)
        device_step = program.device_step
        if not isinstance(device_step, Compiled):
            raise ConfigError(
                "steps of this run are eager; compile them, by program.compiled=true on the "
                "command line or compiled: true in the file",
                "program.compiled",
            )
        state = built.initial() or program.init(loaded.config.seed)
        directory = device_step.lowering.directory
        rows = [
            (_described(batch), _warmed(program, state, batch, directory))
            for batch in _batches(program, built.data, state, loaded.config)
        ]
    output.print_table(console, ("batch", ""), rows, folded=("",))
    output.print_lines(console, _NOT_KEPT if directory is None else f"libraries: {directory}")


def _warmed(program: ft.Program, state: ft.TrainState, batch: Batch, directory: Path | None) -> str:
    """Compile for a batch; return a text with the time it took."""
    before, began = _libraries(directory), time.perf_counter()
    program.warm(state, batch)
    seconds = time.perf_counter() - began
    there = directory is not None and _libraries(directory) == before
    return f"{'already compiled' if there else 'compiled'}, {seconds:.1f} s"


def _libraries(directory: Path | None) -> set[str]:
    return set() if directory is None else {path.name for path in directory.glob("*.pt2")}


def _batches(
    program: ft.Program, data: Any, state: ft.TrainState, options: config.RunConfig
) -> Iterator[Batch]:
    """Yield the first batch of a run, and the last of its first epoch if that may be shorter.

    The last one is left out if the data must be read up to it.
    """
    source, accumulate = source_of(program, data), program.recipe.accumulate
    try:
        first, is_last = next(epoch_batches(source, state, accumulate, None))
        yield first
        length = source.length
        steps = Limits.of(options.fit.until).steps(length, accumulate)
        if is_last or length is None or source.replays:
            return
        start = (length - 1) // accumulate * accumulate
        if steps is None or steps > start // accumulate:
            counters = attrs.evolve(state.counters, batch=start)
            position = attrs.evolve(state, counters=counters)
            last, _ = next(epoch_batches(source, position, accumulate, None))
            if _described(last) != _described(first):
                yield last
    finally:
        source.close()


def _described(batch: Batch) -> str:
    """Return the shapes of the tensors in a batch."""
    if isinstance(batch, MicroBatches):
        return "; ".join(map(_described, batch.batches))
    return ", ".join(
        f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
        for tensor in containers.tensors(batch)
    )
