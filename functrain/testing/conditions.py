"""The circumstances under which a step is made: clock, generators, environment, directory."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from types import FunctionType
from unittest import mock

import attrs
import torch

from functrain.testing import surroundings
from functrain.testing.reach import CLOCKS, clocks

_TICK = 1e-6


@attrs.frozen
class Conditions:
    """All that is held fixed while one thing is varied.

    Attributes:
        now: seconds that every clock shows at first; it ticks once each time it is read.
        seeds: of the global generators ``torch``, ``random`` and ``numpy``.
        environment: variables that are other than they are; ``None`` for one that is not set.
        directory: the working directory, or ``None`` for the present one.
    """

    now: float = 1e9 + 0.25
    seeds: dict[str, int] = attrs.field(factory=lambda: {"torch": 0, "random": 0, "numpy": 0})
    environment: dict[str, str] = attrs.field(factory=dict)
    directory: str | None = None

    @contextlib.contextmanager
    def hold(self, functions: list[FunctionType], names: set[str]) -> Iterator[None]:
        """Make it so for the body of a ``with``.

        Args:
            functions: those of the user's; a clock that they imported by name is replaced there.
            names: takes up the environment variables that are read.
        """
        by_name = clocks(functions)
        with contextlib.ExitStack() as held:
            held.enter_context(surroundings.put_back())
            self._seed()
            if self.directory is not None:
                os.chdir(self.directory)
            os.environ.update(self.environment)
            held.enter_context(mock.patch.object(os, "environ", Recording(os.environ, names)))
            fakes = {name: _clock(name, self.now) for name in CLOCKS}
            for name, fake in fakes.items():
                held.enter_context(mock.patch.object(time, name, fake))
            for scope, name, real in by_name:
                held.enter_context(mock.patch.dict(scope, {name: fakes[real]}))
            yield

    def _seed(self) -> None:
        torch.manual_seed(self.seeds["torch"])
        random.seed(self.seeds["random"])
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(self.seeds["numpy"])


class Recording(MutableMapping[str, str]):
    """An environment that notes down which variables are read.

    Example:
        >>> names = set()
        >>> Recording({"HOME": "/"}, names).get("SCALE", "1"), names
        ('1', {'SCALE'})
    """

    def __init__(self, environment: MutableMapping[str, str], names: set[str]) -> None:
        self._environment, self._names = environment, names

    def __getitem__(self, name: str) -> str:
        self._names.add(name)
        return self._environment[name]

    def __setitem__(self, name: str, value: str) -> None:
        self._environment[name] = value

    def __delitem__(self, name: str) -> None:
        del self._environment[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environment)

    def __len__(self) -> int:
        return len(self._environment)

    def copy(self) -> dict[str, str]:
        """As ``os.environ`` has it."""
        return dict(self._environment)


def _clock(name: str, now: float) -> Callable[[], float | int]:
    ticks = itertools.count()
    if name.endswith("_ns"):
        return lambda: int(now * 1e9) + 1000 * next(ticks)
    return lambda: now + _TICK * next(ticks)
