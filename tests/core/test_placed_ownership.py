"""A donated step sees other holders of a DTensor's local part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import ranks
import torch
from torch import Tensor

import functrain as ft
from functrain import tree
from functrain.core.ownership import owns_its_tensors, unshared
from functrain.distributed import current
from functrain.tree.placed import local


def placed() -> Any:
    import placed_trees

    return placed_trees.cut(torch.zeros(128, 2), current())


HOLDERS: list[Callable[[Any], Any]] = [
    lambda tensor: local(tensor),
    lambda tensor: tensor.to_local(),
    lambda tensor: tensor.detach(),
    lambda tensor: local(tensor).detach(),
    lambda tensor: local(tensor)[1:],
]


def holders() -> list[bool]:
    tensor = placed()
    found = [unshared([tensor])]
    for holder in HOLDERS:
        kept = holder(tensor)
        found.append(unshared([tensor]))
        del kept
        found.append(unshared([tensor]))
    return found


def test_any_holder_of_the_local_part_counts() -> None:
    assert ranks.run(holders, 1) == [[True] + [False, True] * len(HOLDERS)]


def loss(model: torch.nn.Module, batch: Tensor) -> Tensor:
    return model(batch).square().mean()


def in_a_state() -> list[bool]:
    import placed_trees

    world = current()
    program = ft.program(lambda: torch.nn.Linear(2, 128), loss, ft.optim.Adam(lr=0.1), ema=0.9)

    def cut(leaf: Any) -> Any:
        large = isinstance(leaf, Tensor) and leaf.shape == (128, 2)
        return placed_trees.cut(leaf, world) if large else leaf

    def owns() -> bool:
        return owns_its_tensors(state, program.fixed.trainable, eager=False)

    state = program.init()
    state = attrs.evolve(
        state,
        **{part: tree.map(cut, getattr(state, part)) for part in ("params", "optimizer", "ema")},
    )
    found = [owns()]
    for holder in (
        lambda: local(state.params["weight"]),
        lambda: state.optimizer["exp_avg"]["weight"].to_local(),
        lambda: local(state.ema["params"]["weight"]).detach(),
        lambda: state.params["weight"],
        lambda: state.params["bias"].detach(),
    ):
        kept = holder()
        found.append(owns())
        del kept
        found.append(owns())
    return found


def test_a_state_with_dtensors_owns_them_if_nothing_else_does() -> None:
    assert ranks.run(in_a_state, 2) == [[True] + [False, True] * 5] * 2
