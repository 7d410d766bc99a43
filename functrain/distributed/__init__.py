"""Several processes that train together, each called by its rank, on ``torch.distributed``.

Begin with ``group.py`` (the process group of this process, and messages between the hosts) and
``failure.py`` (how the failure of one rank ends all of them).
"""

from functrain.distributed.group import World, current, leave

__all__ = ["World", "current", "leave"]
