"""Run a run of ``functrain train`` again from the configuration in its directory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch

from functrain import config
from functrain.errors import ConfigurationError
from functrain.view.run_checkpoints import CONFIG_NAME


@contextlib.contextmanager
def made_again(directory: Path) -> Iterator[Callable[[], Mapping[str, Any]]]:
    """Yield a function that builds new arguments of ``fit``, for ``functrain.bisect``.

    Inside the block the import paths of the configuration are in effect.
    """
    if not (directory / CONFIG_NAME).exists():
        raise ConfigurationError(
            f"{directory} has no {CONFIG_NAME}, so functrain train did not write it and cannot run "
            "it again: call functrain.bisect with functions that return what fit was called with, "
            "dict(program=..., data=..., until=..., directory=...)"
        )
    loaded, threads = config.load(str(directory / CONFIG_NAME)), torch.get_num_threads()

    def make() -> Mapping[str, Any]:
        # Results depend on the number of threads, so use the run's own.
        torch.set_num_threads(loaded.config.threads or threads)
        with config.importable(loaded):
            built = config.build(loaded.config)
            return {
                "program": built.program,
                "data": built.data,
                "state": built.initial(),
                **config.fit_arguments(loaded.config, built),
                # The directory may have been moved since the configuration was written.
                "directory": attrs.evolve(built.store, directory=directory),
            }

    try:
        with config.importable(loaded):
            yield make
    finally:
        torch.set_num_threads(threads)
