"""The smallest part of the parameters that an optimizer updates by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from functrain import optim
from functrain.core.optimizer import Optimizer, Params
from functrain.optim.units import units

PARAMS = {"a.weight": torch.randn(6, 4), "b.weight": torch.randn(4, 3)}
LEAFWISE = (optim.LAMB, optim.Adafactor, optim.Muon)


def moved(optimizer: Optimizer, grads: Params, params: Params) -> Params:
    """Return the parameters after three updates."""
    bound = optimizer.bind(params)
    state = bound.init(params)
    for _ in range(3):
        params, state = bound.update(grads, state, params, 0.1)
    return params


ELEMENTS = [
    getattr(optim, name)(lr=0.1)
    for name in (
        *("Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "Lion", "NAdam", "RAdam"),
        *("RMSprop", "ScheduleFreeAdamW", "ScheduleFreeSGD", "SGD"),
    )
]
LEAVES = [
    *(kind(lr=0.1) for kind in LEAFWISE),
    optim.AdaptiveGradClip(optim.SGD(lr=0.1), clipping=0.1),
    optim.ClipByBlockRms(optim.SGD(lr=0.1), threshold=0.1),
    optim.Lookahead(optim.LAMB(lr=0.1), sync_period=2),
]


@pytest.mark.parametrize("optimizer", ELEMENTS, ids=lambda one: type(one).__name__)
def test_rows_are_updated_apart(optimizer: Optimizer) -> None:
    assert set(units(optimizer, PARAMS).values()) == {"element"}
    assert set(units(optim.Float32State(optimizer), PARAMS).values()) == {"element"}
    grads = {path: one.cos() for path, one in PARAMS.items()}
    parts = [moved(optimizer, first(grads, rows), first(PARAMS, rows)) for rows in ((0, 2), (2, 6))]
    whole = moved(optimizer, grads, PARAMS)
    for path in PARAMS:
        torch.testing.assert_close(torch.cat([part[path] for part in parts]), whole[path])


def first(params: Params, rows: tuple[int, int]) -> Params:
    return {path: one[slice(*rows)] for path, one in params.items()}


@pytest.mark.parametrize("optimizer", LEAVES, ids=lambda one: type(one).__name__)
def test_leaves_are_updated_apart(optimizer: Optimizer) -> None:
    assert set(units(optimizer, PARAMS).values()) == {"leaf"}
    grads = {path: one.cos() for path, one in PARAMS.items()}
    whole = moved(optimizer, grads, PARAMS)
    for path in PARAMS:
        alone = moved(optimizer, {path: grads[path]}, {path: PARAMS[path]})
        assert torch.equal(alone[path], whole[path])


def test_every_optimizer_is_one_of_them() -> None:
    known = {type(one).__name__ for one in [*ELEMENTS, *LEAVES]}
    kinds = {name for name in optim.__all__ if name[0].isupper() and is_optimizer(name)}
    others = {"Optimizer", "FromTorch", "Frozen", "Groups", "Float32State"}
    assert kinds - others == known


def is_optimizer(name: str) -> bool:
    found = getattr(optim, name)
    return isinstance(found, type) and hasattr(found, "update_")


def test_what_is_unknown_may_look_at_everything() -> None:
    unknown = optim.from_torch(torch.optim.Adafactor, lr=0.1)
    for optimizer in (unknown, optim.ClipByBlockRms(unknown, threshold=0.1)):
        assert set(units(optimizer, PARAMS).values()) == {"all"}


def test_groups_decide_leaf_by_leaf() -> None:
    pattern: Callable[[str, Tensor], bool] = lambda path, _: path.startswith("a")  # noqa: E731
    given = optim.groups([(pattern, optim.Muon(lr=0.1)), ("*", optim.AdamW(lr=0.1))])
    assert units(given, PARAMS) == {"a.weight": "leaf", "b.weight": "element"}
    frozen = optim.groups([("c.*", optim.Frozen()), ("*", optim.LAMB(lr=0.1))])
    bound = frozen.bind({**PARAMS, "c.weight": torch.ones(2)})
    assert units(bound, PARAMS) == {"a.weight": "leaf", "b.weight": "leaf"}
