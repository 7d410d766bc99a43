"""Refuse to time a contender whose first losses differ from the plain loop's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STEPS = 3
TOLERANCE = 1e-3


class DifferentWorkError(Exception):
    """A contender's losses are not those of the plain loop."""


def check(reference: Sequence[float], losses: Mapping[str, Sequence[float]]) -> None:
    """Compare the losses of the first steps.

    Args:
        reference: those of the plain loop.
        losses: those of the others, by name.

    Raises:
        DifferentWorkError: some differ by more than 1e-3, relative; all are listed.
    """
    wrong = [
        f"{name}: {_line(found)}" for name, found in losses.items() if not _same(reference, found)
    ]
    if wrong:
        raise DifferentWorkError(
            "these losses of the first steps are not those of the plain loop, so they are of "
            "different work, and nothing was timed\n"
            + "\n".join([f"plain loop: {_line(reference)}", *wrong])
        )


def _same(reference: Sequence[float], found: Sequence[float]) -> bool:
    pairs = zip(reference, found, strict=True)
    return all(abs(other - value) <= TOLERANCE * abs(value) for value, other in pairs)


def _line(losses: Sequence[float]) -> str:
    return ", ".join(f"{loss:.6f}" for loss in losses)
