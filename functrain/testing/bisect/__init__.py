"""Where two runs part: at which step, in which part of it, at which leaf and element.

``records`` reads what the runs wrote down, ``sides`` knows how to make them again, ``replaying``
does so, ``steps`` compares one step of both in the order in which a step happens.
"""

from functrain.testing.bisect.searching import bisect
from functrain.testing.bisect.steps import Element, Parting

__all__ = ["Element", "Parting", "bisect"]
