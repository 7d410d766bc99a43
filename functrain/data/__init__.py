"""Data as a pure function of position: a batch follows from the seed, the epoch and the index.

Begin with ``batches.py``; ``source.py`` adapts every other kind of data.
"""

from functrain.core.batch_sizes import size
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
