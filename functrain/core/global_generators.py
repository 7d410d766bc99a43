"""The global generators of ``random`` and ``numpy.random``, lent to a piece of code.

``random.getstate`` takes 10 us, ``numpy.random.get_state`` 40 us and seeding both 6 us, which every
step would pay, also of a model that draws from neither. So they are copied as memory where their
layout is known (``generator_memory.py``), and by their public functions elsewhere, with the same
numbers.
"""

from __future__ import annotations

import functools
import importlib
import random
import struct
import sys
from typing import Any, Protocol

import torch

from functrain.core import generator_memory
from functrain.core.generator_memory import WORDS
from functrain.errors import RandomnessError

_BYTES = 4 * WORDS
_HALF, _THIRD = _BYTES // 2, _BYTES // 3


class Generators(Protocol):
    """Both generators; NumPy's only if NumPy was imported when they were asked for.

    Example:
        >>> lent = generators(with_numpy=True)
        >>> saved = lent.save()
        >>> _ = torch.manual_seed(7)
        >>> lent.start()
        >>> first = random.random()
        >>> lent.start()
        >>> first == random.random()
        True
        >>> lent.restore(saved)
    """

    def save(self) -> Any:
        """Return both as they are; NumPy draws by MT19937 from then on, whatever it drew by."""
        ...

    def start(self) -> None:
        """Start both by the seed that torch's generator was just given.

        They get the words that it starts with, in other orders. A draw combines three words that
        lie 1 and 397 apart; in no two of the orders are the same three that far apart, so the
        three streams have nothing in common but the seed.
        """
        ...

    def restore(self, saved: Any) -> None:
        """Put back bit for bit what :meth:`save` returned."""
        ...


@functools.cache
def generators(with_numpy: bool) -> Generators:
    """Return the generators of ``random`` and, with NumPy, of ``numpy.random``."""
    # Importing NumPy alone does not import this; its first use within a step would.
    numpy_random = importlib.import_module("numpy.random") if with_numpy else None
    return generator_memory.found(numpy_random) or PublicGenerators(numpy_random)


class PublicGenerators:
    """Both generators by their public functions."""

    __slots__ = ("_numpy",)

    def __init__(self, numpy_random: Any) -> None:
        self._numpy = numpy_random

    def save(self) -> Any:
        python = random.getstate()
        if self._numpy is None:
            return python, None
        bits, state = self._numpy.get_bit_generator(), self._numpy.get_state(legacy=False)
        if type(bits) is not self._numpy.MT19937:
            self._numpy.set_bit_generator(self._numpy.MT19937(0))
        return python, (bits, state)

    def start(self) -> None:
        # The generator expands a seed anyway; `random.seed` would take another 4 us.
        words = generator_memory.words_by_state(torch.default_generator)
        random.setstate((3, (*_unpacked(words[_HALF:] + words[:_HALF]), WORDS), None))
        if self._numpy is not None:
            turned = words[2 * _THIRD :] + words[_THIRD : 2 * _THIRD] + words[:_THIRD]
            self._numpy.set_state(("MT19937", _unpacked(turned), WORDS, 0, 0.0))

    def restore(self, saved: Any) -> None:
        python, theirs = saved
        random.setstate(python)
        if theirs is not None:
            self._numpy.set_bit_generator(theirs[0])
            self._numpy.set_state(theirs[1])


def _unpacked(words: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={WORDS}I", words)


def refuse_imported() -> None:
    """Refuse draws from a ``numpy.random`` that was imported after the generators were saved."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is None:
        return
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
