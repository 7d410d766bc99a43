"""One of two runs that are compared: what it wrote down, and how it is made again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import torch

from functrain.checkpoint import Checkpoints
from functrain.errors import ConfigurationError

CONFIG = "config.yaml"
# Makes the arguments of ``fit``, anew at each call: program, data, until, ...
Make: TypeAlias = Callable[[], Mapping[str, Any]]


@attrs.frozen(eq=False)
class Side:
    """A run.

    Attributes:
        make: the arguments that ``fit`` was called with.
        directory: what it wrote, if it wrote anything.
    """

    make: Make
    directory: Path | None

    @property
    def recorded(self) -> bool:
        """Whether there is anything that it wrote."""
        return self.directory is not None and self.directory.is_dir()


@contextlib.contextmanager
def opened(given: str | Path | Make) -> Iterator[Side]:
    """A run by its directory, or by a function that makes its arguments.

    Args:
        given: a directory that ``functrain train`` wrote, or a function without parameters.

    Raises:
        ConfigurationError: it is neither.
    """
    if callable(given):
        yield Side(given, _directory(given().get("directory")))
        return
    directory = Path(given)
    if not (directory / CONFIG).exists():
        raise ConfigurationError(
            f"{directory} has no {CONFIG}, so it was not written by functrain train and how to "
            "make the run again is not known: call functrain.bisect with functions that return "
            "what fit was called with, dict(program=..., data=..., until=..., directory=...)"
        )
    with _configured(directory) as make:
        yield Side(make, directory)


@contextlib.contextmanager
def _configured(directory: Path) -> Iterator[Make]:
    """A function that builds what a run's configuration says, within its import paths."""
    from functrain import config

    loaded, threads = config.load(str(directory / CONFIG)), torch.get_num_threads()

    def make() -> Mapping[str, Any]:
        torch.set_num_threads(loaded.config.threads or threads)
        with config.importable(loaded):
            built = config.build(loaded.config)
            return {
                "program": built.program,
                "data": built.data,
                "state": built.initial(),
                **config.fit_arguments(loaded.config, built),
            }

    try:
        with config.importable(loaded):
            yield make
    finally:
        torch.set_num_threads(threads)


def _directory(given: Any) -> Path | None:
    if isinstance(given, Checkpoints):
        return given.directory
    return None if given is None else Path(given)
