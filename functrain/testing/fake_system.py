"""Replace the answers of the operating system: time, process id and random bytes."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import io
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any
from unittest import mock

import attrs

from functrain.testing.reachable_code import global_references

Clock = Callable[[], float]

URANDOM = "os.urandom"
FILE = "the file"
# Different from the default: another year, and another half of the day.
MOMENTS = (2e9 + 0.7, 1e9 + 44_919.5)
_NUMBERS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_MOMENTS = ("localtime", "gmtime", "ctime")
_TICK = 1e-6


@attrs.frozen
class FakeSystem:
    """Fixed answers of the operating system; every clock ticks each time it is read."""

    now: float = 1e9 + 0.25
    process: int = 4242
    seed: int = 0

    @contextlib.contextmanager
    def hold(self, functions: list[FunctionType], asked: set[str]) -> Iterator[None]:
        """Give these answers inside a ``with`` block.

        ``datetime`` is replaced only in the user's functions, because other code may check for its
        classes. Threads that run already (a progress bar, a logger) get the system's own answers.
        """
        fakes = [*self._clocks(asked), *self._process(asked), *_files(asked)]
        patches = list(_in_own_threads(fakes))
        by_name = {id(getattr(module, name)): fake for module, name, fake in patches}
        by_name |= self._dates(asked)
        with contextlib.ExitStack() as held:
            for scope, name in global_references(functions, by_name):
                held.callback(scope.__setitem__, name, scope[name])
                scope[name] = by_name[id(scope[name])]
            for module, name, fake in patches:
                held.enter_context(mock.patch.object(module, name, fake))
            yield

    def _clocks(self, asked: set[str]) -> Iterator[tuple[ModuleType, str, Any]]:
        for name in _NUMBERS:
            yield time, name, _ticking(f"time.{name}", self.now, asked)
            seconds = _ticking(f"time.{name}_ns", self.now, asked)
            yield time, f"{name}_ns", _in_nanoseconds(seconds)
        for name in _MOMENTS:
            seconds = _ticking(f"time.{name}", self.now, asked)
            yield time, name, _of_moment(getattr(time, name), seconds)
        local = _of_moment(time.localtime, _ticking("time.strftime", self.now, asked))
        as_text, in_short = time.strftime, time.asctime
        yield time, "strftime", lambda form, when=None: as_text(form, when or local())
        yield time, "asctime", lambda when=None: in_short(when or local())

    def _process(self, asked: set[str]) -> Iterator[tuple[ModuleType, str, Any]]:
        def number() -> int:
            asked.add("os.getpid")
            return self.process

        def drawn(size: int) -> bytes:
            asked.add(URANDOM)
            return source.randbytes(size)

        source = random.Random(self.seed)
        yield os, "getpid", number
        yield os, "urandom", drawn
        yield random, "_urandom", drawn  # under which SystemRandom and secrets have it

    def _dates(self, asked: set[str]) -> dict[int, Any]:
        """Return replacements of the module and its classes, by the id of the original."""
        moment, day = _dating(self.now, asked)
        module = ModuleType("datetime")
        vars(module).update({**vars(datetime), "datetime": moment, "date": day})
        return {id(datetime): module, id(datetime.datetime): moment, id(datetime.date): day}


def clocks(asked: set[str]) -> str:
    """Return the names of the clocks among the functions called."""
    others = (URANDOM, "os.getpid", FILE)
    return ", ".join(sorted(each for each in asked if not each.startswith(others)))


def _files(asked: set[str]) -> Iterator[tuple[ModuleType, str, Any]]:
    """Record which files are opened; their content is not replaced."""

    def opened(real: Callable[..., Any], file: Any, *given: Any, **named: Any) -> Any:
        asked.add(f"{FILE} {file}")
        return real(file, *given, **named)

    for module in (builtins, io):
        yield module, "open", functools.partial(opened, module.open)


def _in_own_threads(
    fakes: list[tuple[ModuleType, str, Any]],
) -> Iterator[tuple[ModuleType, str, Any]]:
    """Leave the real functions to the threads that run besides this one."""
    others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def answer(
        real: Callable[..., Any], fake: Callable[..., Any], *given: Any, **named: Any
    ) -> Any:
        return (real if threading.get_ident() in others else fake)(*given, **named)

    for module, name, fake in fakes:
        yield module, name, functools.partial(answer, getattr(module, name), fake)


def _ticking(told: str, now: float, asked: set[str]) -> Clock:
    ticks = itertools.count()

    def seconds() -> float:
        asked.add(told)
        return now + _TICK * next(ticks)

    return seconds


def _in_nanoseconds(seconds: Clock) -> Callable[[], int]:
    return lambda: int(seconds() * 1e9)


def _of_moment(real: Callable[[float], Any], seconds: Clock) -> Callable[..., Any]:
    return lambda given=None: real(seconds() if given is None else given)


def _dating(now: float, asked: set[str]) -> tuple[type, type]:
    clocks = {name: _ticking(f"datetime.{name}", now, asked) for name in ("now", "utcnow", "today")}
    day_clock = _ticking("date.today", now, asked)

    class Moment(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(clocks["now"](), tz)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.fromtimestamp(clocks["utcnow"](), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(clocks["today"]())

    class Day(datetime.date):
        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(day_clock())

    return Moment, Day
