"""The generators of ``random`` and ``numpy.random`` as memory, which a step lends in few calls.

Both are Mersenne Twisters: 624 words and a position. Each layout is compared with what the public
functions say before it is relied on; see ``global_generators.py``, which has them to fall back on.
"""

from __future__ import annotations

import ctypes
import functools
import random
import struct
import sys
from typing import Any

import torch

WORDS = 624
_BYTES = 4 * WORDS
_HALF, _THIRD = _BYTES // 2, _BYTES // 3
_HEADER = object.__basicsize__
_NO_GAUSS = bytes(16)


class GeneratorMemory:
    """Saves, starts and restores both generators; see ``global_generators.Generators``.

    Each is a C struct. ``random`` holds position and words, and half a pair of gauss beside it.
    NumPy has the MT19937 that it draws by, words and position, and half a pair of its own.
    """

    __slots__ = (
        *("_bits", "_gauss", "_numpy", "_numpy_memory", "_numpy_words", "_numpy_position"),
        *("_python", "_python_memory", "_python_words", "_python_position", "_torch_words"),
    )

    def __init__(self, python: Any, torch_words: Any, numpy_random: Any, gauss: Any) -> None:
        address = id(python) + _HEADER
        self._python, self._torch_words = python, torch_words
        self._python_memory = _memory(address, 4 + _BYTES)
        self._python_position = ctypes.c_int.from_address(address)
        self._python_words = _memory(address + 4, _BYTES)
        self._numpy, self._gauss, self._bits = numpy_random, gauss, None

    def save(self) -> Any:
        """Return both as they are; NumPy draws by MT19937 from then on, whatever it drew by."""
        python = self._python_memory.raw, self._python.gauss_next
        if self._numpy is None:
            return python, None
        bits, gauss = self._numpy.get_bit_generator(), self._gauss.raw
        if type(bits) is not self._numpy.MT19937:
            self._numpy.set_bit_generator(self._numpy.MT19937(0))
            return python, (bits, None, gauss)
        if bits is not self._bits:
            self._use(bits)
        return python, (bits, self._numpy_memory.raw, gauss)

    def start(self) -> None:
        """Start both by the seed that torch's generator was just given."""
        words = self._torch_words.raw
        self._python_words.raw = words[_HALF:] + words[:_HALF]
        self._python_position.value = WORDS
        self._python.gauss_next = None
        if self._numpy is None:
            return
        bits = self._numpy.get_bit_generator()
        if bits is not self._bits:
            self._use(bits)
        with bits.lock:  # other threads draw without holding Python's
            self._numpy_words.raw = (
                words[2 * _THIRD :] + words[_THIRD : 2 * _THIRD] + words[:_THIRD]
            )
            self._numpy_position.value = WORDS
        self._gauss.raw = _NO_GAUSS

    def restore(self, saved: Any) -> None:
        """Put back bit for bit what :meth:`save` returned."""
        (self._python_memory.raw, self._python.gauss_next), theirs = saved
        if theirs is None:
            return
        bits, memory, gauss = theirs
        if self._numpy.get_bit_generator() is not bits:
            self._numpy.set_bit_generator(bits)
        if memory is not None:
            if bits is not self._bits:
                self._use(bits)
            with bits.lock:
                self._numpy_memory.raw = memory
        self._gauss.raw = gauss  # which a bit generator that is set clears

    def _use(self, bits: Any) -> None:
        """Find the memory of the MT19937 in use, which seldom is another than last time."""
        address = bits.ctypes.state_address
        self._numpy_memory = _memory(address, _BYTES + 4)
        self._numpy_words = _memory(address, _BYTES)
        self._numpy_position = ctypes.c_int.from_address(address + _BYTES)
        self._bits = bits


def found(numpy_random: Any) -> GeneratorMemory | None:
    """Return the memory of all generators, if each is where it is expected."""
    if not is_locked():
        return None
    python, torch_words = random.getstate.__self__, words_of_torch()  # type: ignore[attr-defined]
    if torch_words is None or type(python).__basicsize__ < _HEADER + 4 + _BYTES:
        return None
    gauss = None
    if numpy_random is not None:
        offset = _offset_of_gauss(numpy_random)
        if offset is None or not _is_mt19937(numpy_random):
            return None
        gauss = _memory(id(numpy_random.get_state.__self__) + offset, len(_NO_GAUSS))
    memory = GeneratorMemory(python, torch_words, numpy_random, gauss)
    return memory if _is_python(memory) else None


def _is_python(memory: GeneratorMemory) -> bool:
    """Whether the memory holds what ``random.getstate`` says."""
    *words, position = random.getstate()[1]
    return bool(memory._python_memory.raw == struct.pack(f"=i{WORDS}I", position, *words))


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


@functools.cache
def words_of_torch() -> Any:
    """Return the memory where torch's generator holds its words, if it is found."""
    probe = torch.Generator()
    words, own = words_by_state(probe.manual_seed(5489)), torch.default_generator
    if not (_pointer(probe) and _pointer(own)):
        return None
    offset = ctypes.string_at(_pointer(probe), 128 + _BYTES).find(words)
    memory = _memory(_pointer(own) + max(offset, 0), _BYTES)
    return memory if memory.raw == words_by_state(own) else None


def words_by_state(generator: torch.Generator) -> bytes:
    """Return the words of torch's generator by its public functions."""
    state = bytes(generator.get_state().tolist())
    # After seed, position and flags, each in eight bytes.
    return struct.pack(f"={WORDS}I", *struct.unpack_from(f"={WORDS}Q", state, 24))


def _pointer(generator: torch.Generator) -> int:
    """Return the address that torch's Python object holds of its own object in C++."""
    return ctypes.c_void_p.from_address(id(generator) + _HEADER).value or 0


def _memory(address: int, size: int) -> Any:
    return (ctypes.c_char * size).from_address(address)


def is_locked() -> bool:
    """Whether this is CPython with its lock: no other thread draws while memory is copied."""
    locked = getattr(sys, "_is_gil_enabled", lambda: True)()
    return sys.implementation.name == "cpython" and bool(locked)
