"""Random streams as values: a stream is named by a root seed and a path, and costs nothing to find.

Torch, ``random`` and NumPy draw from global generators. The two scopes here lend those generators
to a piece of code, seeded, and put them back bit for bit afterwards. All threads share the
generators, so one thread at a time has them.
"""

from __future__ import annotations

import operator
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import attrs
import torch
from torch import Generator, Tensor
from xxhash import xxh3_64_intdigest

from functrain.core.global_generators import Draws, generators, refuse_imported
from functrain.core.torch_internals import is_autocast_on
from functrain.errors import ConfigurationError, FunctrainWarning, RandomnessError
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


def device_generator(device: torch.device) -> Generator | None:
    """Torch's default generator of an accelerator; ``None`` for a device without its own."""
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    if device.type not in ("cuda", "xpu"):
        return None
    backend: Any = getattr(torch, device.type)
    backend.init()  # the generators are made on first use
    index = backend.current_device() if device.index is None else device.index
    generator: Generator = backend.default_generators[index]
    return generator


def _new_turn() -> None:
    global _turn
    _turn = threading.RLock()


# The thread that had the lock may not exist in a forked process.
os.register_at_fork(after_in_child=_new_turn)


def take_turn() -> threading.RLock:
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
    """Let no other thread be in a scope during a block; see :func:`take_turn`."""
    lock = take_turn()
    try:
        yield
    finally:
        lock.release()


class Scope:
    """The global generators, lent to the body of a ``with`` and then put back."""

    __slots__ = (
        "_alone",
        "_device",
        "_device_state",
        "_draws",
        "_has_numpy",
        "_lock",
        "_no_autocast",
        "_others",
        "_seed",
        "_started",
        "_state",
    )

    def __init__(
        self, seed: int, device: Generator | None, alone: bool, draws: Draws | None
    ) -> None:
        self._seed = seed
        self._device = device
        self._alone = alone
        self._draws = draws

    def __enter__(self) -> Scope:
        self._lock = take_turn()
        try:
            self._borrow()
        except BaseException:  # Ctrl-C too: without a body, nothing else releases the lock
            self._lock.release()
            raise
        if not self._alone:
            self._lock.release()
        self._no_autocast = without_autocast()
        self._no_autocast.__enter__()
        return self

    def _borrow(self) -> None:
        # Generator.manual_seed costs 1 us, torch.manual_seed 120 us.
        self._state = torch.default_generator.get_state()
        self._has_numpy = sys.modules.get("numpy") is not None
        lent, watching = (generators(), False) if self._draws is None else self._draws.lent()
        self._others = [(one, one.save()) for one in lent]
        torch.default_generator.manual_seed(self._seed)
        for one in lent:
            one.start(derive(self._seed, one.name))
        self._started = [one.save() for one in lent] if watching else None
        if self._device is not None:
            self._device_state = self._device.get_state()
            self._device.manual_seed(self._seed)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not self._alone:  # its end must not fall into the step of another thread either
            self._lock = take_turn()
        try:
            torch.default_generator.set_state(self._state)
            if self._device is not None:
                self._device.set_state(self._device_state)
            self._give_back()
        finally:
            self._no_autocast.__exit__(kind, error, trace)
            self._lock.release()

    def _give_back(self) -> None:
        moved = set()
        if self._draws is not None and self._started is not None:
            pairs = zip(self._others, self._started, strict=True)
            moved = {one.name for (one, _), started in pairs if one.save() != started}
        for one, saved in self._others:
            one.restore(saved)
        if not self._has_numpy:
            refuse_imported()
        if moved and self._draws is not None:
            self._draws.saw(moved)


def scoped(
    seed: int,
    device: torch.device | None = None,
    *,
    alone: bool = True,
    draws: Draws | None = None,
) -> Scope:
    """Seed torch's, Python's and NumPy's global generators for the body of a ``with``.

    With ``draws`` the latter two only where they are drawn from.

    The caller's autocast is off inside, because a step has the precision of its program.

    The CPU's generator is always seeded, that of an accelerator if given. The context nests, and
    restores bit for bit after an exception as well. With ``alone`` other threads wait until the
    body has ended; otherwise only while it begins and ends.

    Example:
        >>> with scoped(7):
        ...     a = torch.rand(()), random.random()
        >>> with scoped(7):
        ...     b = torch.rand(()), random.random()
        >>> a == b
        True
    """
    return Scope(seed, None if device is None else device_generator(device), alone, draws)


def without_autocast() -> AbstractContextManager[object]:
    """Return a context without the autocast of the caller; one of its own may begin inside."""
    return _autocast_off() if is_autocast_on() else _NOTHING


@contextmanager
def _autocast_off() -> Iterator[None]:
    try:
        with torch._C._DisableAutocast():
            yield
    finally:
        # Torch keeps the cast copies of parameters until the outermost autocast ends, which may be
        # around a whole loop: those of each step would stay in memory.
        torch.clear_autocast_cache()


def refuse_system_seed(seed: int, again: Callable[[], object]) -> None:
    """Refuse code that seeded torch's generator from the operating system, by ``torch.seed()``.

    Its draws then do not follow from the seed of its scope. Torch reports the seed last set,
    not who set it; but where a second call ends with another seed, it was the system.

    ``again`` calls the code once more; only where a seed looks like one of the system's.
    """
    last = torch.default_generator.initial_seed()
    if last == seed or last <= _MASK32:  # people choose small ones; torch.seed() takes 64 bits
        return
    with scoped(seed):
        again()
        if torch.default_generator.initial_seed() == last:
            return
    raise RandomnessError(
        "the loss or the model seeded torch's generator from the operating system (torch.seed()), "
        "so its later random numbers do not follow from the state: the same step gives another "
        "result next time, also when a run is resumed. The generator is seeded for each step; "
        "where a seed is needed, take int(torch.randint(2**31, ())) instead of torch.seed()."
    )


class sample_scope:  # noqa: N801  (read as a verb: with sample_scope() as scope)
    """Every global generator that code about data may draw from, lent and then put back.

    These are torch's (of the CPU and, once CUDA is in use, of the current CUDA device), the one
    of ``random`` and, if NumPy is imported, the one of ``numpy.random``. Inside, :meth:`seed`
    starts them afresh as often as is wanted.

    Example:
        >>> with sample_scope() as scope:
        ...     scope.seed(7)
        ...     a = random.random()
        ...     scope.seed(7)
        ...     b = random.random()
        >>> a == b
        True
    """

    __slots__ = ("_generators", "_has_numpy", "_others", "_states")

    def __enter__(self) -> sample_scope:
        self._generators = [torch.default_generator]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
        self._states: list[Tensor] = [generator.get_state() for generator in self._generators]
        self._has_numpy = sys.modules.get("numpy") is not None
        self._others = [(one, one.save()) for one in generators()]
        return self

    def seed(self, seed: int) -> None:
        """Start all the generators at ``seed`` (NumPy's takes its low 32 bits)."""
        for generator in self._generators:
            generator.manual_seed(seed)
        # Not as `scoped` starts them: runs of earlier versions must resume with the same samples.
        random.seed(seed)
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            numpy.random.seed(seed & _MASK32)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        for one, saved in self._others:
            one.restore(saved)
        if not self._has_numpy:
            refuse_imported()
