"""Python collects garbage less often while a graph is made, and as before afterwards."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import GraphModule

import functrain as ft
from functrain.transforms.graph.garbage import fewer_collections

pytestmark = pytest.mark.row(50)


@pytest.mark.parametrize("fails", [False, True])
def test_only_while_a_graph_is_made(fails: bool) -> None:
    seen = []

    def backend(graph: GraphModule, inputs: Any) -> Any:
        seen.append(gc.get_threshold())
        if fails:
            raise RuntimeError("no compiler")
        return graph

    before = gc.get_threshold()
    program = ft.program(nn.Linear(2, 1), lambda model, x: model(x).mean(), ft.optim.SGD(lr=0.1))
    compiled = ft.compiled(program, backend=backend)
    if fails:
        with pytest.raises(ft.errors.CompilationError):
            compiled.train_step(compiled.init(), torch.ones(3, 2))
    else:
        compiled.train_step(compiled.init(), torch.ones(3, 2))
    assert seen[0][0] > before[0]
    assert gc.get_threshold() == before


def test_nested_and_never() -> None:
    before = gc.get_threshold()
    with fewer_collections():
        inside = gc.get_threshold()
        with fewer_collections():
            assert gc.get_threshold() == inside
        assert gc.get_threshold() == inside
    gc.set_threshold(0, *before[1:])
    with fewer_collections():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
    gc.set_threshold(*before)
