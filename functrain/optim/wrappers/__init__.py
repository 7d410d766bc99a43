"""Small transformations of optimizers, each an optimizer around another one."""

from functrain.optim.wrappers.add_noise import AddNoise
from functrain.optim.wrappers.centralize import Centralize
from functrain.optim.wrappers.clipping import AdaptiveGradClip, ClipByBlockRms
from functrain.optim.wrappers.float32_state import Float32State
from functrain.optim.wrappers.lookahead import Lookahead
from functrain.optim.wrappers.skip_large_updates import SkipLargeUpdates

__all__ = [
    "AdaptiveGradClip",
    "AddNoise",
    "Centralize",
    "ClipByBlockRms",
    "Float32State",
    "Lookahead",
    "SkipLargeUpdates",
]
