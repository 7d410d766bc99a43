"""Data as a pure function of position: a batch follows from the seed, the epoch and the index.

Begin with ``batches.py``; ``source.py`` adapts every other kind of data.
"""

from typing import TYPE_CHECKING, NoReturn

from functrain.core.batch import size
from functrain.core.batch_splitting import split
from functrain.data.batches import Batches
from functrain.data.mixed_samples import mixed_samples
from functrain.data.mixture import Mixture
from functrain.data.packed import Documents, Packed
from functrain.data.permutation import Permutation
from functrain.data.prefetched import prefetched
from functrain.data.samplers import ByLength, Sampler
from functrain.data.source import Source, as_source
from functrain.data.weights import Interpolated, Temperature
from functrain.errors.nearest import unknown_attribute
from functrain.errors.other_libraries import IN_DATA

__all__ = [
    "Batches",
    "ByLength",
    "Documents",
    "Interpolated",
    "Mixture",
    "Packed",
    "Permutation",
    "Sampler",
    "Source",
    "Temperature",
    "as_source",
    "mixed_samples",
    "prefetched",
    "size",
    "split",
]

if not TYPE_CHECKING:  # a type checker would take any name for one of the module

    def __getattr__(name: str) -> NoReturn:
        raise unknown_attribute("module 'functrain.data'", name, __all__, IN_DATA)
