"""Checkpoints: a tree saved as a directory that exists completely or not at all.

Begin with ``saving.py`` and ``loading.py``, then ``checkpoints.py`` (the checkpoints of a run).
``format`` encodes a tree as a manifest and tensors, ``storage`` writes them durably, and ``remote``
copies them to object stores.
"""

from functrain.checkpoint.background import Saver
from functrain.checkpoint.checkpoints import Checkpoints
from functrain.checkpoint.format.manifest import Manifest
from functrain.checkpoint.format.mismatches import Anything
from functrain.checkpoint.format.records import File, Leaf
from functrain.checkpoint.loading import load, verify
from functrain.checkpoint.manifest_file import read_manifest
from functrain.checkpoint.outline import lazy
from functrain.checkpoint.saving import save
from functrain.checkpoint.weights import weights

__all__ = [
    "Anything",
    "Checkpoints",
    "File",
    "Leaf",
    "Manifest",
    "Saver",
    "lazy",
    "load",
    "read_manifest",
    "save",
    "verify",
    "weights",
]
