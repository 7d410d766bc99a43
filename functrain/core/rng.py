"""Random streams as values, and the scopes in which code draws from them.

A stream is named by a root seed and a path, and costs nothing to find. Torch, ``random`` and NumPy
draw from global generators: a scope seeds these for a piece of code, and puts them back bit for bit
afterwards. All threads share them, so one thread at a time has them.
"""

from __future__ import annotations

import operator
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from functrain.core.global_generators import Draws, device_generator, generators
from functrain.errors import ConfigurationError, FunctrainWarning
from functrain.errors.base import warn

_MASK64 = (1 << 64) - 1
_MASK32 = (1 << 32) - 1
_NOTHING: AbstractContextManager[object] = nullcontext()
_PATIENCE = 60.0  # seconds
# The thread that holds it uses the global generators and the shells of programs.
_turn = threading.RLock()


def derive(root: int, *path: int | str) -> int:
    """Return the seed of the stream that ``path`` names under ``root``; the same for ever.

    Args:
        root: root seed; only its low 64 bits count.
        path: what tells this stream from others, such as ``"dropout", step``.

    Returns:
        An integer from 0 to 2**63 - 1 (XXH3 of the path, seeded by ``root``).

    Raises:
        TypeError: a part of the path is neither ``int`` nor ``str``.

    Example:
        >>> derive(0, "sample", 3)
        2354609411876597446
        >>> derive(0, "sample", "3") == derive(0, "sample", 3)
        False
    """
    for part in path:
        if type(part) is not int and type(part) is not str:
            raise TypeError(
                f"a stream is named by ints and strings, but {part!r} is {type(part).__name__}"
            )
    # ascii() quotes strings and escapes the rest, so different paths have different texts, and
    # unlike repr() it does not depend on the Unicode tables of the Python version.
    return xxh3_64_intdigest(ascii(path).encode(), root & _MASK64) >> 1


@attrs.frozen
class Rng:
    """A root seed, from which every random stream of a run is derived.

    Example:
        >>> Rng(seed=0).stream("sample", 3) == derive(0, "sample", 3)
        True
    """

    seed: int

    def stream(self, *path: int | str) -> int:
        """Return the seed of the stream that ``path`` names; see :func:`derive`."""
        return derive(self.seed, *path)


def checked_seed(seed: Any) -> int:
    """Return a root seed as an int.

    Example:
        >>> checked_seed("7")
        Traceback (most recent call last):
        functrain.errors.ConfigurationError: seed: expected a whole number, got a str
    """
    try:
        return operator.index(seed)
    except TypeError:
        hint = "; pretrained weights go to params=" if isinstance(seed, dict) else ""
        got = type(seed).__name__
        raise ConfigurationError(f"seed: expected a whole number, got a {got}{hint}") from None


def _new_turn() -> None:
    global _turn
    _turn = threading.RLock()


# The thread that had the lock may not exist in a forked process.
os.register_at_fork(after_in_child=_new_turn)


def _take_turn() -> threading.RLock:
    """Wait until no other thread is in a scope; return the lock, which the caller releases."""
    lock = _turn
    while not lock.acquire(timeout=_PATIENCE):
        warn(
            f"the thread {threading.current_thread().name!r} waits for another thread to end a "
            "step or an evaluation, because torch has one random generator for all threads. Code "
            "within a step must not wait for another thread that makes one; threads that are to "
            "train at the same time need processes of their own",
            FunctrainWarning,
        )
    return lock


@contextmanager
def turn() -> Iterator[None]:
    """Let no other thread be in a scope during a block."""
    lock = _take_turn()
    try:
        yield
    finally:
        lock.release()


class Scope:
    """The global generators, lent to the body of a ``with``; see :func:`scoped`."""

    __slots__ = (
        "_alone",
        "_device",
        "_draws",
        "_lent",
        "_lock",
        "_no_autocast",
        "_seed",
        "_started",
        "_states",
    )

    def __init__(
        self, seed: int, device: torch.device | None, alone: bool, draws: Draws | None
    ) -> None:
        self._seed = seed
        self._device = device
        self._alone = alone
        self._draws = draws

    def __enter__(self) -> Scope:
        self._lock = _take_turn()
        try:
            self._begin()
        except BaseException:  # Ctrl-C too: without a body, nothing else releases the lock
            self._lock.release()
            raise
        if not self._alone:
            self._lock.release()
        self._no_autocast = without_autocast(self._device)
        self._no_autocast.__enter__()
        return self

    def _begin(self) -> None:
        draws = self._draws
        others, is_watched = (generators(), False) if draws is None else draws.lent()
        own = device_generator(self._device)
        lent: list[Any] = [torch.default_generator, *others]
        if own is not None:
            lent.append(own)
        self._lent, self._states = lent, [one.get_state() for one in lent]
        # Generator.manual_seed costs 1 us, torch.manual_seed 120 us.
        torch.default_generator.manual_seed(self._seed)
        if own is not None:
            own.manual_seed(self._seed)
        for one in others:
            one.manual_seed(derive(self._seed, one.name))
        self._started = [(one, one.get_state()) for one in lent] if is_watched else []

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._alone:  # its end must not fall into the step of another thread either
            self._lock = _take_turn()
        try:
            moved = {
                getattr(one, "name", "torch")
                for one, state in self._started
                if not _is_same(one.get_state(), state)
            }
            for one, state in zip(self._lent, self._states, strict=True):
                one.set_state(state)
            if moved and self._draws is not None:
                self._draws.saw(moved)
        finally:
            self._no_autocast.__exit__(kind, error, trace)
            self._lock.release()


def _is_same(state: Any, other: Any) -> bool:
    """Compare states of a generator; ``torch.equal`` takes no tensors below ``FakeTensorMode``."""
    return bool(state.tolist() == other.tolist() if isinstance(state, Tensor) else state == other)


def scoped(
    seed: int,
    device: torch.device | None = None,
    *,
    alone: bool = True,
    draws: Draws | None = None,
) -> Scope:
    """Seed torch's, Python's and NumPy's global generators for the body of a ``with``.

    The generator of the CPU is always seeded, that of an accelerator if it is given. The scope
    nests, and restores bit for bit after an exception as well. The caller's autocast is off inside,
    because a step has the precision of its program.

    Args:
        seed: of the stream.
        device: on which the code computes.
        alone: whether other threads wait until the body has ended; otherwise only while it begins
            and ends.
        draws: seed those of Python and NumPy only where they are drawn from.

    Example:
        >>> with scoped(7):
        ...     a = torch.rand(())
        >>> with scoped(7):
        ...     b = torch.rand(())
        >>> a == b
        tensor(True)
    """
    return Scope(seed, device, alone, draws)


def without_autocast(device: torch.device | None) -> AbstractContextManager[object]:
    """Return a context without the caller's autocast on a device; one may begin inside."""
    on = autocast_kinds(device)
    return _autocast_off(on) if on else _NOTHING


def autocast_kinds(device: torch.device | None) -> list[str]:
    """Return for which kinds of device that a step on ``device`` uses autocast is on."""
    kinds = ["cpu"]
    if device is not None and device.type != "cpu" and torch.amp.is_autocast_available(device.type):
        kinds.append(device.type)
    return [kind for kind in kinds if torch.is_autocast_enabled(kind)]


@contextmanager
def _autocast_off(kinds: list[str]) -> Iterator[None]:
    try:
        with ExitStack() as stack:
            for kind in kinds:
                stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        # Torch keeps the cast copies of parameters until the outermost autocast ends, which may be
        # around a whole loop: those of each step would stay in memory.
        torch.clear_autocast_cache()


def refuse_system_seed(seed: int, again: Callable[[], object]) -> None:
    """Refuse code that seeded torch's generator from the operating system, by ``torch.seed()``.

    Its draws then do not follow from the seed of its scope. ``again`` repeats the code, only where
    it left a seed that looks like one of the system's.
    """
    last = torch.default_generator.initial_seed()
    if last != seed and last > _MASK32:  # people choose small ones; torch.seed() takes 64 bits
        from functrain.diagnosis.randomness import require_same_seed

        with scoped(seed):
            again()
            require_same_seed(last)
