"""Transformations: functions from a program to a program.

Begin with ``donated.py``, then ``compiled.py``. ``graph`` captures a whole step as one graph,
``unrolling`` makes steps that are differentiable.
"""

from functrain.transforms.compiled import compiled
from functrain.transforms.donated import donated
from functrain.transforms.sharpness_aware import sharpness_aware
from functrain.transforms.steps import steps
from functrain.transforms.unrolling.program import differentiable
from functrain.transforms.unrolling.unrolled import unrolled

__all__ = ["compiled", "differentiable", "donated", "sharpness_aware", "steps", "unrolled"]
