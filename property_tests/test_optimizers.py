"""Laws of every optimizer with any of its options."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from optimizers import Leaves, leaves, optimizers, shapes
from torch import Tensor

import functrain as ft
from functrain import copy, tree
from functrain.testing import check_optimizer

dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
kernels = st.booleans()


def run(
    optimizer: Any, shapes: dict[str, Any], dtype: torch.dtype, steps: int, kernel: bool
) -> tuple[Leaves, Any]:
    params = leaves(shapes, 0, dtype)
    state = optimizer.init(params)
    for step in range(steps):
        grads = leaves(shapes, step + 1, dtype)
        if kernel:
            optimizer.update_(grads, state, params, 0.05 / (step + 1))
        else:
            params, state = optimizer.update(grads, state, params, 0.05 / (step + 1))
    return params, state


@pytest.mark.row(52)
@given(optimizer=optimizers(), dtype=dtypes, data=st.data())
def test_an_update_is_pure(optimizer: Any, dtype: torch.dtype, data: st.DataObject) -> None:
    check_optimizer(optimizer, leaves(data.draw(shapes(optimizer)), 0, dtype))


@given(optimizer=optimizers(), dtype=dtypes, kernel=kernels, data=st.data())
def test_an_update_keeps_shapes_dtypes_and_paths(
    optimizer: Any, dtype: torch.dtype, kernel: bool, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    params = leaves(chosen, 0, dtype)
    begun = tree.items([params, optimizer.init(params)])
    ended = tree.items(list(run(optimizer, chosen, dtype, 3, kernel)))
    described = [
        [(path, leaf.shape, leaf.dtype) for path, leaf in items] for items in (begun, ended)
    ]
    assert described[0] == described[1]


@given(
    optimizer=optimizers(), dtype=st.sampled_from([torch.float32, torch.float64]), data=st.data()
)
def test_the_kernel_equals_the_rule(
    optimizer: Any, dtype: torch.dtype, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    by_rule, _ = run(optimizer, chosen, dtype, 3, kernel=False)
    by_kernel, _ = run(optimizer, chosen, dtype, 3, kernel=True)
    bound = 2e-4 if dtype == torch.float32 else 1e-11
    for path in chosen:
        torch.testing.assert_close(by_kernel[path], by_rule[path], rtol=bound, atol=bound)


@given(optimizer=optimizers(), dtype=dtypes, kernel=kernels, data=st.data())
def test_permuting_the_leaves_permutes_the_results(
    optimizer: Any, dtype: torch.dtype, kernel: bool, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    order = data.draw(st.permutations(list(chosen)))
    permuted = {path: chosen[path] for path in order}
    one, _ = run(optimizer, chosen, dtype, 3, kernel)
    other, _ = run(optimizer, permuted, dtype, 3, kernel)
    assert list(other) == order
    assert tree.diff(one, {path: other[path] for path in one}) == []


@given(optimizer=optimizers(), dtype=dtypes, kernel=kernels, data=st.data())
def test_a_leaf_does_not_see_the_others(
    optimizer: Any, dtype: torch.dtype, kernel: bool, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    alone = data.draw(st.sampled_from(sorted(chosen)))
    together, _ = run(optimizer, chosen, dtype, 3, kernel)
    only, _ = run(optimizer, {alone: chosen[alone]}, dtype, 3, kernel)
    assert tree.diff(together[alone], only[alone]) == []


@given(
    optimizer=optimizers(without=(ft.optim.ScheduleFreeSGD, ft.optim.ScheduleFreeAdamW)),
    dtype=dtypes,
    kernel=kernels,
    data=st.data(),
)
def test_a_skipped_leaf_trains_as_if_alone(
    optimizer: Any, dtype: torch.dtype, kernel: bool, data: st.DataObject, tmp_path_factory: Any
) -> None:
    chosen = data.draw(shapes(optimizer))
    alone = data.draw(st.sampled_from(sorted(chosen)))
    having = data.draw(st.lists(st.sets(st.sampled_from(sorted(chosen))), max_size=8))
    start = leaves(chosen, 0, dtype)
    params, state = copy(start), optimizer.init(start)
    only, own = copy({alone: start[alone]}), optimizer.init({alone: start[alone]})
    for step, paths in enumerate(having):
        grads = {p: g for p, g in leaves(chosen, step + 1, dtype).items() if p in paths}
        mine = {path: grad for path, grad in grads.items() if path == alone}
        if kernel:
            optimizer.update_(grads, state, params, 0.05)
        else:
            params, state = optimizer.update(grads, state, params, 0.05)
        if mine and kernel:
            optimizer.update_(mine, own, only, 0.05)
        elif mine:
            only, own = optimizer.update(mine, own, only, 0.05)
    assert tree.diff(params[alone], only[alone]) == []
    path = ft.save(tmp_path_factory.mktemp("tree") / "state", state)
    assert tree.diff(ft.load(path, like=optimizer.init(start)), state) == []


@given(optimizer=optimizers(), data=st.data())
def test_the_rule_under_vmap_over_lr_and_decay_equals_a_loop(
    optimizer: Any, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    has_decay = hasattr(optimizer, "weight_decay")
    lrs = torch.tensor([0.0, 0.01, 0.1], dtype=torch.float64)
    decays = torch.tensor([0.3, 0.0, 0.1], dtype=torch.float64)
    start, *grads = (leaves(chosen, seed, torch.float64) for seed in range(4))

    def member(lr: Any, decay: Any) -> Leaves:
        own = attrs.evolve(optimizer, weight_decay=decay) if has_decay else optimizer
        params, state = start, own.init(start)
        for grad in grads:
            params, state = own.update(grad, state, params, lr)
        return params

    found = torch.func.vmap(member)(lrs, decays)
    for index, (lr, decay) in enumerate(zip(lrs.tolist(), decays.tolist(), strict=True)):
        for path, expected in member(lr, decay).items():
            torch.testing.assert_close(found[path][index], expected, rtol=1e-11, atol=1e-12)


@given(optimizer=optimizers(), data=st.data())
def test_the_gradient_of_three_steps_to_lr_equals_finite_differences(
    optimizer: Any, data: st.DataObject
) -> None:
    chosen = data.draw(shapes(optimizer))
    weights = leaves(chosen, 7, torch.float64)

    def outcome(lr: Any) -> Tensor:
        params = leaves(chosen, 0, torch.float64)
        state = optimizer.init(params)
        for _ in range(3):
            grads = {path: weights[path] * param**3 for path, param in params.items()}
            params, state = optimizer.update(grads, state, params, lr)
        return sum((weights[path] * param).sum() for path, param in params.items())  # type: ignore[return-value]

    lr = torch.tensor(0.01, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(outcome(lr), lr)
    slopes = [
        (outcome(0.01 + width) - outcome(0.01 - width)) / (2 * width) for width in (1e-6, 5e-7)
    ]
    # There is no derivative where a gradient changes sign or a bound becomes active.
    assume(torch.allclose(slopes[0], slopes[1], rtol=1e-4, atol=1e-6))
    torch.testing.assert_close(found, slopes[1], rtol=1e-4, atol=1e-6)


@given(optimizer=optimizers(), dtype=dtypes, kernel=kernels, data=st.data())
def test_a_loaded_state_continues_like_the_saved_one(
    optimizer: Any, dtype: torch.dtype, kernel: bool, data: st.DataObject, tmp_path_factory: Any
) -> None:
    chosen = data.draw(shapes(optimizer))
    params, state = run(optimizer, chosen, dtype, 2, kernel)
    path = tmp_path_factory.mktemp("tree") / "state"
    ft.save(path, {"params": params, "optimizer": state})
    loaded = ft.load(path)
    assert tree.diff({"params": params, "optimizer": state}, loaded) == []
    grads = leaves(chosen, 9, dtype)
    expected = optimizer.update(grads, state, params, 0.1)
    found = optimizer.update(grads, loaded["optimizer"], loaded["params"], 0.1)
    assert tree.diff(expected, found) == []
