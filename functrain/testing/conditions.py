"""Fix the conditions of a step: clock, generators, environment, working directory."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator, MutableMapping
from types import FunctionType
from unittest import mock

import attrs
import torch

from functrain.testing import global_state
from functrain.testing.fake_system import FakeSystem


@attrs.frozen
class Conditions:
    """Everything that is fixed while one thing varies."""

    system: FakeSystem = attrs.field(factory=FakeSystem)
    seeds: dict[str, int] = attrs.field(factory=lambda: {"torch": 0, "random": 0, "numpy": 0})
    environment: dict[str, str] = attrs.field(factory=dict)
    directory: str | None = None

    @contextlib.contextmanager
    def hold(
        self, functions: list[FunctionType], names: set[str], asked: set[str]
    ) -> Iterator[None]:
        """Establish the conditions for the body of a ``with`` block.

        ``names`` collects the environment variables that are read, and ``asked`` the system
        functions that are called.
        """
        with contextlib.ExitStack() as held:
            held.enter_context(global_state.preserved())
            self._seed()
            if self.directory is not None:
                os.chdir(self.directory)
            os.environ.update(self.environment)
            held.enter_context(mock.patch.object(os, "environ", Recording(os.environ, names)))
            held.enter_context(self.system.hold(functions, asked))
            yield

    def _seed(self) -> None:
        torch.manual_seed(self.seeds["torch"])
        random.seed(self.seeds["random"])
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(self.seeds["numpy"])


class Recording(MutableMapping[str, str]):
    """An environment that records which variables are read."""

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
        """Return a copy, like ``os.environ.copy``."""
        return dict(self._environment)
