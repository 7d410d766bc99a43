"""Views in a captured graph, where the compiler lays tensors out in another way."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from functrain.transforms.graph.aliases import Aliases


def loosen(module: GraphModule) -> None:
    """Turn each ``view`` of memory that nothing writes to into a ``reshape``.

    A graph is captured with the strides of eager torch. Inductor's decompositions may have others:
    it concatenates a tensor with an empty one, as key-value caches of transformers do at first, by
    a clone, which stays transposed. A recorded ``view`` is impossible then; ``reshape`` is the same
    view where it can be one, and copies where it cannot.

    Args:
        module: a captured graph.
    """
    aliases = Aliases(module.graph)
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default):
        if not aliases.writes(node):
            node.target = torch.ops.aten.reshape.default
    module.recompile()
