"""Describe an influence on a step from outside the state."""

from __future__ import annotations

from typing import Literal

import attrs

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
