"""Functions from a program to a program."""

from functrain.transforms.compiled import compiled
from functrain.transforms.donated import donated
from functrain.transforms.sharpness_aware import sharpness_aware

__all__ = ["compiled", "donated", "sharpness_aware"]
