"""Data as a pure function of position, and every other kind of data by one small protocol."""

from functrain.data.batches import Batches
from functrain.data.permutation import Permutation
from functrain.data.source import Source, as_source

__all__ = ["Batches", "Permutation", "Source", "as_source"]
