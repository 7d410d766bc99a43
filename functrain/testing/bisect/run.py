"""One of two runs that ``bisect`` compares: how to run it again and where it was recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch

from functrain import config
from functrain.checkpoint import Checkpoints
from functrain.errors import ConfigurationError
from functrain.errors.paths import expanded
from functrain.view.run_checkpoints import CONFIG_NAME

# Returns new arguments of ``fit`` at each call: program, data, until, ...
Make: TypeAlias = Callable[[], Mapping[str, Any]]


@attrs.frozen(eq=False)
class Side:
    """A run: its arguments of ``fit``, and its run directory, if it had one."""

    make: Make
    directory: Path | None

    @classmethod
    def of(cls, make: Make) -> Side:
        """Read the run directory from the arguments of the run."""
        if not callable(make):
            raise ConfigurationError(
                f"expected a function that returns the arguments of fit, got {make!r}: call "
                "functrain.bisect with functions that return the arguments of fit, "
                "dict(program=..., data=..., until=..., directory=...), or with directories of "
                "functrain train"
            )
        given = make().get("directory")
        if isinstance(given, Checkpoints):
            return cls(make, given.directory)
        return cls(make, None if given is None else expanded(given))

    @property
    def recorded(self) -> Path | None:
        """The run directory, if it exists."""
        exists = self.directory is not None and self.directory.is_dir()
        return self.directory if exists else None


@contextlib.contextmanager
def made_again(directory: Path) -> Iterator[Make]:
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
