"""Checkpoints: a tree saved as a directory that exists completely or not at all.

Begin with ``saving.py`` and ``loading.py``, then ``checkpoints.py`` (the checkpoints of a run).
``format`` encodes a tree as a manifest and tensors, ``storage`` writes them durably, ``together``
saves from many ranks, and ``remote`` copies checkpoints to object stores.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrain.checkpoint.background import Saver
    from functrain.checkpoint.checkpoints import Checkpoints
    from functrain.checkpoint.format.decoding import Anything
    from functrain.checkpoint.format.manifest import Manifest
    from functrain.checkpoint.format.records import File, Leaf
    from functrain.checkpoint.loading import load, verify
    from functrain.checkpoint.manifest_file import read_manifest
    from functrain.checkpoint.model_weights import weights
    from functrain.checkpoint.outline import lazy
    from functrain.checkpoint.saving import save

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

# Nothing is imported before it is used: saving needs neither loading nor the rules of a run.
_DEFINED_IN = {
    "Anything": "format.decoding",
    "Checkpoints": "checkpoints",
    "File": "format.records",
    "Leaf": "format.records",
    "Manifest": "format.manifest",
    "Saver": "background",
    "lazy": "outline",
    "load": "loading",
    "read_manifest": "manifest_file",
    "save": "saving",
    "verify": "loading",
    "weights": "model_weights",
}


def __getattr__(name: str) -> Any:
    if name in ("remote", "retention"):  # modules that users name
        return import_module(f"{__name__}.{name}")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_DEFINED_IN[name]}"), name)
