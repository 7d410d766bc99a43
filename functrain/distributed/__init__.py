"""Several processes that train together, each called by its rank, on ``torch.distributed``.

Begin with ``sharded.py``, then ``gradients.py`` (the step on several ranks) and ``placed.py`` (the
places of tensors). ``group.py`` is the process group of this process, ``failure.py`` how the
failure of one rank ends all of them.
"""

from functrain.distributed.group import World, current
from functrain.distributed.joining import leave
from functrain.distributed.placement import Placement
from functrain.distributed.sharded import sharded

__all__ = ["Placement", "World", "current", "leave", "sharded"]
