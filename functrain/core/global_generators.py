"""The global generators of Python, NumPy and accelerators, by their public functions.

Each has the methods of ``torch.Generator``. To save, seed and restore that of ``random`` takes 20
us, that of NumPy 200 us, and torch's 3 us. So a program lends the first two to its steps only if
its first steps drew from them, or if its user says so; see :class:`Draws`.
"""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, TypeAlias

import attrs
import torch

from functrain.errors import FunctrainWarning
from functrain.errors.base import warn

GeneratorName: TypeAlias = Literal["python", "numpy"]
_FIRST, _EVERY = 8, 128  # both are watched in the first scopes, and then in one of so many


class PythonRandom:
    """The generator of ``random``."""

    name: ClassVar[GeneratorName] = "python"

    get_state = staticmethod(random.getstate)
    set_state = staticmethod(random.setstate)
    manual_seed = staticmethod(random.seed)


class NumpyRandom:
    """The generator of ``numpy.random``, whatever bit generator it draws by."""

    name: ClassVar[GeneratorName] = "numpy"

    @property
    def _numpy(self) -> Any:
        # Importing NumPy alone does not import this; its first use within a step would.
        return importlib.import_module("numpy.random")

    def get_state(self) -> Any:
        """Return the state, which equals another if nothing was drawn; MT19937 goes on from it."""
        bits, state = self._numpy.get_bit_generator(), self._numpy.get_state(legacy=False)
        if type(bits) is not self._numpy.MT19937:
            self._numpy.set_bit_generator(self._numpy.MT19937(0))
        return bits, _comparable(state)

    def set_state(self, saved: Any) -> None:
        """Put back bit for bit what :meth:`get_state` returned."""
        bits, state = saved
        self._numpy.set_bit_generator(bits)
        self._numpy.set_state(state)

    def manual_seed(self, seed: int) -> None:
        """Seed the generator with the low 32 bits."""
        self._numpy.seed(seed & 0xFFFFFFFF)


def _comparable(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _comparable(value) for key, value in state.items()}
    return tuple(state.tolist()) if hasattr(state, "tolist") else state


_BOTH: tuple[Any, ...] = (PythonRandom(), NumpyRandom())


def generators() -> tuple[Any, ...]:
    """Return the generator of ``random`` and, where it is installed, NumPy's."""
    return _BOTH if sys.modules.get("numpy") is not None else _BOTH[:1]  # torch imports it


def device_generator(device: torch.device | None) -> Any:
    """Return the default generator of an accelerator; ``None`` for a device without its own."""
    if device is None or device.type not in ("cuda", "xpu", "mps"):
        return None
    backend: Any = getattr(torch, device.type)
    if device.type == "mps":
        return _Mps
    backend.init()  # the generators are made on first use
    return backend.default_generators[
        backend.current_device() if device.index is None else device.index
    ]


class _Mps:
    """The generator of Apple's GPUs."""

    get_state = staticmethod(torch.mps.get_rng_state)
    set_state = staticmethod(torch.mps.set_rng_state)
    manual_seed = staticmethod(torch.mps.manual_seed)


@attrs.define(eq=False)
class Draws:
    """The generators that the steps of a program draw from.

    Attributes:
        names: of Python's and NumPy's, those that were seen to move, or that the user named.
        scopes: how many there were.
        from_torch: whether torch's was seen to move.
    """

    names: set[str] = attrs.field(factory=set)
    scopes: int = 0
    from_torch: bool = False

    @property
    def are_none(self) -> bool:
        """Whether steps were made, and none was seen to draw."""
        return self.scopes > 0 and not self.names and not self.from_torch

    def lent(self) -> tuple[tuple[Any, ...], bool]:
        """Return the generators to lend to the next scope, and whether to watch them there."""
        self.scopes += 1
        if self.scopes <= _FIRST or self.scopes % _EVERY == 0:
            return generators(), True
        return tuple(one for one in _BOTH if one.name in self.names) if self.names else (), False

    def saw(self, moved: Iterable[str]) -> None:
        """Note generators that a scope drew from; warn where that was not one of the first."""
        found = set(moved)
        self.from_torch |= "torch" in found
        late = sorted(found - self.names - {"torch"})
        self.names.update(late)
        if late and self.scopes > _FIRST:
            warn(
                f"the loss or the model began to draw from the generators {late} after the first "
                "steps, so its numbers did not follow from the state until now: a resumed run may "
                f"draw others. Make the program with functrain.program(..., random={late})",
                FunctrainWarning,
            )


class sample_scope:  # noqa: N801  (read as a verb: with sample_scope() as scope)
    """Every global generator that code about data may draw from, lent and then put back.

    These are torch's (of the CPU and, once CUDA is in use, of the current CUDA device) and those of
    ``random`` and NumPy. :meth:`seed` starts them afresh as often as is wanted.

    Example:
        >>> with sample_scope() as scope:
        ...     scope.seed(7)
        ...     a = torch.rand(())
        ...     scope.seed(7)
        ...     b = torch.rand(())
        >>> a == b
        tensor(True)
    """

    __slots__ = ("_lent", "_states")

    def __enter__(self) -> sample_scope:
        self._lent: list[Any] = [torch.default_generator, *generators()]
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            self._lent.append(torch.cuda.default_generators[torch.cuda.current_device()])
        self._states = [one.get_state() for one in self._lent]
        return self

    def seed(self, seed: int) -> None:
        """Start all the generators at ``seed`` (NumPy's takes its low 32 bits)."""
        # Not as `scoped` starts them: runs of earlier versions must resume with the same samples.
        for one in self._lent:
            one.manual_seed(seed)

    def __exit__(self, *_: object) -> None:
        for one, state in zip(self._lent, self._states, strict=True):
            one.set_state(state)
