"""Transformations: functions from a program to a program.

Begin with ``donated.py``, then ``compiled.py``. ``graph`` captures a whole step as one graph.
"""

from functrain.transforms.compiled import compiled
from functrain.transforms.donated import donated
from functrain.transforms.sharpness_aware import sharpness_aware
from functrain.transforms.steps import steps

__all__ = ["compiled", "donated", "sharpness_aware", "steps"]
