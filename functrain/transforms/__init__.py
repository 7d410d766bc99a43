"""Functions from a program to a program."""

from functrain.transforms.compiled import compiled
from functrain.transforms.donated import donated

__all__ = ["compiled", "donated"]
