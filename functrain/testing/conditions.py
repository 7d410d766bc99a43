"""Fix the conditions of a step: clock, generators, environment, working directory."""

from __future__ import annotations

import contextlib
import os
from collections import UserDict
from collections.abc import Iterator, MutableMapping
from types import FunctionType
from typing import Any, Literal
from unittest import mock

import attrs

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
            global_state.seed(self.seeds)
            if self.directory is not None:
                os.chdir(self.directory)
            os.environ.update(self.environment)
            held.enter_context(mock.patch.object(os, "environ", Recording(os.environ, names)))
            held.enter_context(self.system.hold(functions, asked))
            yield


class Recording(UserDict[str, str]):
    """An environment that records which variables are read."""

    def __init__(self, environment: MutableMapping[str, str], names: set[str]) -> None:
        # Not copied, as UserDict would: a variable that the step sets is set.
        self.data, self._names = environment, names  # type: ignore[assignment]

    def __getitem__(self, name: str) -> str:
        self._names.add(name)
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        self._names.add(str(name))
        return name in self.data

    def __or__(self, other: Any) -> Any:
        return {**self.data, **other}

    def copy(self) -> Any:
        """Return a copy, like ``os.environ.copy``."""
        return dict(self.data)


Verdict = Literal["constant", "hidden state"]

ADVICE = {
    "cache": "Cache only values that depend on the arguments alone",
    "attribute": "Make it a buffer (register_buffer), or part of the optimizer's state",
    "clock": "Leave time to listeners, or give it with the batch",
    "generator": "Draw from a global generator (of torch, random or NumPy): each step seeds them",
    "hash seed": "Sort sets before their order matters",
    "process": "Look for os.getpid, id(), addresses, files and other differences of processes",
    "unknown": "Look for datetime imported in a function, iterators, files, id() and C extensions",
    "": "Make it a buffer of the module, or part of the batch",
}
"""Advice on hidden state, by the kind of influence."""


@attrs.frozen
class Influence:
    """Something outside the state that influences a step.

    Attributes:
        name: its name.
        kind: ``attribute``, ``global``, ``closure variable``, ``default of an argument``,
            ``cache``, ``clock``, ``generator``, ``process``, ``environment variable``,
            ``directory``, ``hash seed`` or ``unknown``.
        verdict: ``constant`` if only its owner changes it, ``hidden state`` if a step changes it or
            it changes by itself.
        detail: the variation, or the difference it caused.

    Example:
        >>> print(Influence("model.SCALE", "global", "constant", "2 became 3"))
        model.SCALE (global): 2 became 3
    """

    name: str
    kind: str
    verdict: Verdict
    detail: str

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}): {self.detail}"
