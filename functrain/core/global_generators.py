"""The global generators of ``random`` and ``numpy.random``, by their public functions.

To save, seed and restore them takes 20 and 200 us, and torch's 3 us. So a program lends them to its
steps only if its first steps drew from them, or if its user says so; see :class:`Draws`.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeAlias

import attrs

from functrain.errors import FunctrainWarning, RandomnessError
from functrain.errors.base import warn

GeneratorName: TypeAlias = Literal["python", "numpy"]
_FIRST, _EVERY = 8, 128  # both are watched in the first scopes, and then in one of so many


class PythonRandom:
    """The generator of ``random``."""

    name: ClassVar[GeneratorName] = "python"

    def save(self) -> Any:
        """Return the state, for :meth:`restore`; two of them are equal if nothing was drawn."""
        return random.getstate()

    def start(self, seed: int) -> None:
        """Seed the generator."""
        random.seed(seed)

    def restore(self, saved: Any) -> None:
        """Put back bit for bit what :meth:`save` returned."""
        random.setstate(saved)


class NumpyRandom:
    """The generator of ``numpy.random``, whatever bit generator it draws by."""

    name: ClassVar[GeneratorName] = "numpy"

    @property
    def _numpy(self) -> Any:
        # Importing NumPy alone does not import this; its first use within a step would.
        return importlib.import_module("numpy.random")

    def save(self) -> Any:
        """See :meth:`PythonRandom.save`; NumPy draws by MT19937 from then on."""
        bits, state = self._numpy.get_bit_generator(), self._numpy.get_state(legacy=False)
        if type(bits) is not self._numpy.MT19937:
            self._numpy.set_bit_generator(self._numpy.MT19937(0))
        return bits, _comparable(state)

    def start(self, seed: int) -> None:
        """See :meth:`PythonRandom.start`."""
        self._numpy.seed(seed & 0xFFFFFFFF)

    def restore(self, saved: Any) -> None:
        """See :meth:`PythonRandom.restore`."""
        bits, state = saved
        self._numpy.set_bit_generator(bits)
        self._numpy.set_state(state)


def _comparable(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _comparable(value) for key, value in state.items()}
    return tuple(state.tolist()) if hasattr(state, "tolist") else state


Lent: TypeAlias = PythonRandom | NumpyRandom
_BOTH: tuple[Lent, ...] = (PythonRandom(), NumpyRandom())


def generators() -> tuple[Lent, ...]:
    """Return the generator of ``random`` and, if NumPy is imported, that of ``numpy.random``."""
    return _BOTH if sys.modules.get("numpy") is not None else _BOTH[:1]


@attrs.define(eq=False)
class Draws:
    """The generators of Python and NumPy that the steps of a program draw from.

    Attributes:
        names: of those that were seen to move, or that the user named.
        scopes: how many there were.
    """

    names: set[str] = attrs.field(factory=set)
    scopes: int = 0

    def lent(self) -> tuple[tuple[Lent, ...], bool]:
        """Return the generators to lend to the next scope, and whether to watch them there."""
        self.scopes += 1
        if self.scopes <= _FIRST or self.scopes % _EVERY == 0:
            return generators(), True
        return tuple(one for one in _BOTH if one.name in self.names) if self.names else (), False

    def saw(self, moved: Iterable[str]) -> None:
        """Note generators that a scope drew from; warn where that was not one of the first."""
        late = sorted(set(moved) - self.names)
        self.names.update(late)
        if late and self.scopes > _FIRST:
            warn(
                f"the loss or the model began to draw from the generators {late} after the first "
                "steps, so its numbers did not follow from the state until now: a resumed run may "
                f"draw others. Make the program with functrain.program(..., random={late})",
                FunctrainWarning,
            )


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
