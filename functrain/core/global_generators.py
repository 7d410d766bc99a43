"""The global generators of ``random`` and ``numpy.random``, lent at about 3 us a time.

``random.getstate`` takes 10 us, ``numpy.random.get_state`` 40 us and seeding both 6 us, which every
step would pay, also of a model that draws from neither. Both are Mersenne Twisters: 624 words and a
position. Here these are copied as memory. Each layout is compared with what the public functions
say before it is relied on; where it differs, those functions are used, with the same numbers.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import random
import struct
import sys
from typing import Any

import torch

from functrain.errors import RandomnessError

_WORDS = 624
_BYTES = 4 * _WORDS
_HALF, _THIRD = _BYTES // 2, _BYTES // 3
_HEADER = object.__basicsize__
_NO_GAUSS = bytes(16)


class Lent:
    """Both generators as they were, while a piece of code draws from them.

    NumPy's is there if NumPy is imported, and draws by MT19937 whatever it drew by.

    Example:
        >>> lent = Lent()
        >>> _ = torch.manual_seed(7)
        >>> lent.start()
        >>> first = random.random()
        >>> lent.start()
        >>> first == random.random()
        True
        >>> lent.give_back()
    """

    __slots__ = ("_numpy", "_python", "_saved", "_saved_python")

    def __init__(self) -> None:
        self._python = _of_python()
        self._saved_python = self._python.save()
        self._numpy = None
        if sys.modules.get("numpy") is not None:
            self._numpy = _of_numpy()
            self._saved = self._numpy.save()

    def start(self) -> None:
        """Start both by the seed that torch's generator was just given.

        They get the words that it starts with, in other orders. A draw combines three words that
        lie 1 and 397 apart; in no two of the orders are the same three that far apart, so the
        three streams have nothing in common but the seed.
        """
        words = _words_of_torch()
        self._python.start(words[_HALF:] + words[:_HALF])
        if self._numpy is not None:
            self._numpy.start(words[2 * _THIRD :] + words[_THIRD : 2 * _THIRD] + words[:_THIRD])

    def give_back(self) -> None:
        """Put back bit for bit what was there.

        Raises:
            RandomnessError: NumPy was imported meanwhile and drawn from, seeded by the system.
        """
        self._python.restore(self._saved_python)
        if self._numpy is not None:
            self._numpy.restore(self._saved)
        elif sys.modules.get("numpy.random") is not None:
            _refuse_drawn(sys.modules["numpy.random"])


class _PythonMemory:
    """``random``'s generator, a C struct of position and words; half a pair of gauss beside it."""

    __slots__ = ("generator", "memory", "position", "words")

    def __init__(self, generator: Any) -> None:
        address = id(generator) + _HEADER
        self.generator = generator
        self.memory = _memory(address, 4 + _BYTES)
        self.position = ctypes.c_int.from_address(address)
        self.words = _memory(address + 4, _BYTES)

    def save(self) -> Any:
        return self.memory.raw, self.generator.gauss_next

    def start(self, words: bytes) -> None:
        self.words.raw = words
        self.position.value = _WORDS
        self.generator.gauss_next = None

    def restore(self, saved: Any) -> None:
        self.memory.raw, self.generator.gauss_next = saved

    def is_verified(self) -> bool:
        """Whether the memory holds what ``getstate`` says."""
        *words, position = self.generator.getstate()[1]
        return bool(self.memory.raw == struct.pack(f"=i{_WORDS}I", position, *words))


class _PythonState:
    """``random``'s generator by its public functions."""

    __slots__ = ()

    def save(self) -> Any:
        return random.getstate()

    def start(self, words: bytes) -> None:
        random.setstate((3, (*struct.unpack(f"={_WORDS}I", words), _WORDS), None))

    def restore(self, saved: Any) -> None:
        random.setstate(saved)


class _MT19937:
    """The memory of one of NumPy's: words, position."""

    __slots__ = ("bits", "lock", "memory", "position", "words")

    def __init__(self, bits: Any) -> None:
        address = bits.ctypes.state_address
        self.bits = bits
        self.lock = bits.lock  # other threads draw without holding Python's
        self.memory = _memory(address, _BYTES + 4)
        self.words = _memory(address, _BYTES)
        self.position = ctypes.c_int.from_address(address + _BYTES)


class _NumpyMemory:
    """NumPy's generator: the MT19937 that it draws by, and its own half pair of gauss."""

    __slots__ = ("gauss", "last", "random")

    def __init__(self, numpy_random: Any, gauss: Any) -> None:
        self.random = numpy_random
        self.gauss = gauss
        self.last = _MT19937(numpy_random.MT19937(0))

    def save(self) -> Any:
        bits, gauss = self.random.get_bit_generator(), self.gauss.raw
        if type(bits) is not self.random.MT19937:
            self.random.set_bit_generator(self.random.MT19937(0))
            return bits, None, b"", gauss
        own = self.last if self.last.bits is bits else self._of(bits)
        return bits, own, own.memory.raw, gauss

    def start(self, words: bytes) -> None:
        bits = self.random.get_bit_generator()
        own = self.last if self.last.bits is bits else self._of(bits)
        with own.lock:
            own.words.raw = words
            own.position.value = _WORDS
        self.gauss.raw = _NO_GAUSS

    def restore(self, saved: Any) -> None:
        bits, own, memory, gauss = saved
        if self.random.get_bit_generator() is not bits:
            self.random.set_bit_generator(bits)
        if own is not None:
            with own.lock:
                own.memory.raw = memory
        self.gauss.raw = gauss

    def _of(self, bits: Any) -> _MT19937:
        """Return the memory of the one in use, which seldom is another than last time."""
        self.last = _MT19937(bits)
        return self.last


class _NumpyState:
    """NumPy's generator by its public functions."""

    __slots__ = ("random",)

    def __init__(self, numpy_random: Any) -> None:
        self.random = numpy_random

    def save(self) -> Any:
        bits, state = self.random.get_bit_generator(), self.random.get_state(legacy=False)
        if type(bits) is not self.random.MT19937:
            self.random.set_bit_generator(self.random.MT19937(0))
        return bits, state

    def start(self, words: bytes) -> None:
        key = struct.unpack(f"={_WORDS}I", words)
        self.random.set_state(("MT19937", key, _WORDS, 0, 0.0))

    def restore(self, saved: Any) -> None:
        bits, state = saved
        self.random.set_bit_generator(bits)
        self.random.set_state(state)


@functools.cache
def _of_python() -> _PythonMemory | _PythonState:
    generator = random.getstate.__self__  # type: ignore[attr-defined]
    fits = type(generator).__basicsize__ >= _HEADER + 4 + _BYTES
    found = _PythonMemory(generator) if fits and _is_locked() else None
    return found if found is not None and found.is_verified() else _PythonState()


@functools.cache
def _of_numpy() -> _NumpyMemory | _NumpyState:
    # Importing NumPy alone does not import this; its first use within a step would.
    numpy_random = importlib.import_module("numpy.random")
    offset = _offset_of_gauss(numpy_random) if _is_locked() else None
    if offset is None or not _is_mt19937(numpy_random):
        return _NumpyState(numpy_random)
    owner = numpy_random.get_state.__self__
    return _NumpyMemory(numpy_random, _memory(id(owner) + offset, len(_NO_GAUSS)))


def _offset_of_gauss(numpy_random: Any) -> int | None:
    """Where a ``RandomState`` holds the second number of a pair: a flag, then the number."""
    probe, offsets = numpy_random.RandomState(0), set()
    if type(probe) is not type(numpy_random.get_state.__self__):
        return None
    held = _memory(id(probe), type(probe).__basicsize__)
    for has_gauss, gauss in ((1, 0.7390851332151607), (1, -1.2020569031595942), (0, 0.0)):
        probe.set_state({**probe.get_state(legacy=False), "has_gauss": has_gauss, "gauss": gauss})
        if has_gauss:
            offsets.add(held.raw.find(struct.pack("=i4xd", has_gauss, gauss)))
    offset = offsets.pop()
    cleared = held.raw[offset : offset + len(_NO_GAUSS)] == _NO_GAUSS
    return offset if not offsets and offset > 0 and cleared else None


def _is_mt19937(numpy_random: Any) -> bool:
    """Whether the documented memory of an ``MT19937`` is 624 words and a position."""
    probe = numpy_random.MT19937(0)
    state = probe.state["state"]
    said = state["key"].tobytes() + struct.pack("=i", state["pos"])
    return bool(_memory(probe.ctypes.state_address, _BYTES + 4).raw == said)


def _words_of_torch() -> bytes:
    """Return the 624 words of torch's generator, which was just seeded.

    It expands a seed anyway; ``random.seed`` would take another 4 us.
    """
    memory = _of_torch()
    return memory.raw if memory is not None else _words(torch.default_generator)


def _words(generator: torch.Generator) -> bytes:
    """Return the words of a generator by its public functions."""
    state = bytes(generator.get_state().tolist())
    # After seed, position and flags, each in eight bytes.
    return struct.pack(f"={_WORDS}I", *struct.unpack_from(f"={_WORDS}Q", state, 24))


@functools.cache
def _of_torch() -> Any:
    """Return the memory where torch's generator holds its words, if it is found."""
    if not _is_locked():
        return None
    probe = torch.Generator()
    words, own = _words(probe.manual_seed(5489)), torch.default_generator
    if not (_pointer(probe) and _pointer(own)):
        return None
    offset = ctypes.string_at(_pointer(probe), 128 + _BYTES).find(words)
    memory = _memory(_pointer(own) + max(offset, 0), _BYTES)
    return memory if memory.raw == _words(own) else None


def _pointer(generator: torch.Generator) -> int:
    """Return the address that torch's Python object holds of its own object in C++."""
    return ctypes.c_void_p.from_address(id(generator) + _HEADER).value or 0


def _memory(address: int, size: int) -> Any:
    return (ctypes.c_char * size).from_address(address)


def _is_locked() -> bool:
    """Whether this is CPython with its lock: no other thread draws while memory is copied."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return sys.implementation.name == "cpython" and bool(locked)


def _refuse_drawn(numpy_random: Any) -> None:
    drawn, fresh = numpy_random.get_bit_generator().state, numpy_random.MT19937().state
    if drawn["bit_generator"] == fresh["bit_generator"] and _beginning(drawn) != _beginning(fresh):
        raise RandomnessError(
            "random numbers were drawn from numpy.random, which was imported within the same step "
            "and so was seeded by the operating system: the same step gives another result next "
            "time. Import numpy.random before the first step."
        )


def _beginning(state: dict[str, Any]) -> tuple[int, int]:
    """Return the part of a state that a first draw changes, and a system seed does not."""
    return state["state"]["pos"], int(state["state"]["key"][0])
