"""A pass over a graph: equal expressions are computed once."""

from __future__ import annotations

from typing import Any

from torch._functorch.compile_utils import fx_graph_cse
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph


class OnceEach(CustomGraphPass):
    """Merge equal expressions: every parameter's rule has the same bias corrections in it.

    It runs where nothing in the graph writes to anything, but for its last operations.
    """

    def __call__(self, graph: Graph) -> None:
        once = fx_graph_cse(graph)
        if (module := graph.owning_module) is not None:
            module.graph = once

    def uuid(self) -> Any:
        """What tells a cache of compiled graphs whether the pass is still the same."""
        return get_hash_for_files((__file__,))
