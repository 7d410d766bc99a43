"""Find where two runs diverge: the step, the part of the step, the leaf and the element.

``records`` reads the files of the runs, ``run`` holds how to repeat them, ``replay`` repeats them,
and ``steps`` compares one step of both in the order in which a step happens.
"""

from functrain.testing.bisect.search import bisect
from functrain.testing.bisect.steps import Parting

__all__ = ["Parting", "bisect"]
