"""Small transformations of optimizers, each an optimizer around another one."""

from functrain.optim.wrappers.clipping import AdaptiveGradClip, ClipByBlockRms
from functrain.optim.wrappers.float32_state import Float32State
from functrain.optim.wrappers.lookahead import Lookahead

__all__ = [
    "AdaptiveGradClip",
    "ClipByBlockRms",
    "Float32State",
    "Lookahead",
]
