"""Laws of every wrapper: purity, the kernel's equality with the rule, compiling, resuming."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.optim import (
    SGD,
    AdamW,
    Frozen,
    Optimizer,
    from_torch,
    groups,
    wrappers,
)

pytestmark = pytest.mark.row(13)

Leaves = dict[str, Tensor]

WRAPPERS: dict[str, Callable[..., Any]] = {
    "adaptive_grad_clip": functools.partial(wrappers.AdaptiveGradClip, clipping=0.1),
    "clip_by_block_rms": functools.partial(wrappers.ClipByBlockRms, threshold=0.5),
    "lookahead": functools.partial(wrappers.Lookahead, sync_period=3),
    "float32_state": wrappers.Float32State,
    "master_weights": functools.partial(wrappers.Float32State, master_weights=True),
}
INNERS: dict[str, Optimizer] = {
    "sgd": SGD(0.1, momentum=0.9, weight_decay=0.01),
    "adamw": AdamW(0.01),
    "groups": groups([("frozen", Frozen()), ("w*", AdamW(0.01)), ("*", SGD(0.1))]),
    "from_torch": from_torch(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    "wrapped": wrappers.Lookahead(
        wrappers.AdaptiveGradClip(wrappers.ClipByBlockRms(AdamW(0.01), 0.5), 0.1), sync_period=2
    ),
}
KINDS = {"w": torch.float32, "wide": torch.float64, "half": torch.bfloat16, "frozen": torch.float32}
SHAPES = {"w": (4, 3), "wide": (2, 3, 2), "half": (5, 2), "frozen": (2,)}

each_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
each_inner = pytest.mark.parametrize("inner", INNERS.values(), ids=INNERS.keys())


def randn(seed: int) -> Leaves:
    source = torch.Generator().manual_seed(seed)
    return {
        path: torch.randn(shape, generator=source, dtype=torch.float64).to(KINDS[path])
        for path, shape in SHAPES.items()
    }


DRAWN = [randn(seed) for seed in range(8)]  # beforehand, because vmap refuses generators


def draw(seed: int) -> Leaves:
    return {path: leaf.clone() for path, leaf in DRAWN[seed].items()}


def grads_of(step: int) -> Leaves:
    """Gradients of which one is missing in every other update."""
    grads = draw(step + 1)
    del grads["frozen"]
    if step % 2:
        del grads["wide"]
    return grads


def rates(optimizer: Any, lr: Any) -> Any:
    return dict.fromkeys(optimizer.lr, lr) if isinstance(optimizer.lr, dict) else lr


def run_rule(optimizer: Optimizer, steps: int, lr: Any = 0.01) -> tuple[Leaves, dict[str, Any]]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(steps):
        params, state = optimizer.update(grads_of(step), state, params, rates(optimizer, lr))
    return params, state


def run_kernel(optimizer: Optimizer, steps: int) -> tuple[Leaves, dict[str, Any]]:
    params = draw(0)
    state = optimizer.init(params)
    for step in range(steps):
        optimizer.update_(grads_of(step), state, params, rates(optimizer, 0.01))
    return params, state


def leaves(tree: Any) -> list[Any]:
    return [leaf for _, leaf in ft.tree.items(tree)]


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def as_bytes(tree: Any) -> bytes:
    return b"".join(ft.tree.to_bytes(leaf).numpy().tobytes() for leaf in tensors(tree))


@pytest.mark.row(1)
@each_wrapper
@each_inner
def test_update_is_pure(wrap: Any, inner: Optimizer) -> None:
    optimizer = wrap(inner)
    params, state = run_rule(optimizer, 2)
    inputs = {"grads": grads_of(2), "state": state, "params": params}
    before, rng = as_bytes(inputs), torch.get_rng_state()
    lr = rates(optimizer, 0.01)
    first = optimizer.update(inputs["grads"], state, params, lr)
    second = optimizer.update(inputs["grads"], state, params, lr)
    assert as_bytes(inputs) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert as_bytes(first) == as_bytes(second) != b""


@each_wrapper
@each_inner
def test_the_kernel_equals_the_rule(wrap: Any, inner: Optimizer) -> None:
    optimizer = wrap(inner)
    expected, expected_state = run_rule(optimizer, 7)
    found, state = run_kernel(optimizer, 7)
    assert torch.equal(found["frozen"], draw(0)["frozen"])
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype == KINDS[path]
        # In half precision kernels round once, rules after every operation.
        bounds = {torch.bfloat16: 0.05, torch.float32: 2e-6, torch.float64: 1e-12}
        if "Float32State" in repr(optimizer):
            bounds[torch.bfloat16] = 2.0**-7
        bound = bounds[leaf.dtype]
        torch.testing.assert_close(found[path], leaf, rtol=bound, atol=bound)
    assert state.keys() == expected_state.keys()
    for mine, theirs in zip(leaves(state), leaves(expected_state), strict=True):
        if isinstance(mine, Tensor):
            assert mine.dtype == theirs.dtype
            if not mine.is_floating_point():
                assert torch.equal(mine, theirs)


@each_wrapper
@each_inner
def test_the_kernel_keeps_the_tensors_and_reads_the_gradients(wrap: Any, inner: Optimizer) -> None:
    optimizer = wrap(inner)
    params, state = run_kernel(optimizer, 3)  # then every leaf has had a gradient
    held = [*tensors(params), *tensors(state)]
    addresses = [tensor.data_ptr() for tensor in held]
    for step in range(3, 7):
        grads = grads_of(step)
        before = as_bytes(grads)
        optimizer.update_(grads, state, params, rates(optimizer, 0.01))
        assert as_bytes(grads) == before
    now = [*tensors(params), *tensors(state)]
    assert [tensor.data_ptr() for tensor in now] == addresses
    assert len(set(addresses)) == len(addresses)


@pytest.mark.row(50)
@pytest.mark.sweep
@pytest.mark.parametrize(
    ("wrapper", "name"),
    [
        *((wrapper, "groups") for wrapper in ("lookahead", "master_weights")),
        *((wrapper, "adamw") for wrapper in WRAPPERS),
        ("float32_state", "wrapped"),
    ],
)
def test_compiles_as_one_graph(wrapper: str, name: str) -> None:
    torch._dynamo.reset()
    optimizer = WRAPPERS[wrapper](INNERS[name]).bind(draw(0))
    params = draw(0)
    state = optimizer.init(params)
    compiled = torch.compile(optimizer.update, fullgraph=True, backend="aot_eager")
    for step in (0, 2, 4):
        lr = rates(optimizer, torch.tensor(0.01 * (step + 1)))
        found, found_state = compiled(grads_of(step), state, params, lr)
        params, state = optimizer.update(grads_of(step), state, params, lr)
        for mine, theirs in zip(
            tensors((found, found_state)), tensors((params, state)), strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@each_wrapper
@pytest.mark.parametrize("name", ["adamw", "groups", "wrapped"])
def test_no_value_is_asked_for_on_the_host(wrap: Any, name: str) -> None:
    # A tensor on the meta device has no value: to ask for one is an error.
    optimizer = wrap(INNERS[name])
    params, grads = ({p: t.to("meta") for p, t in leaves.items()} for leaves in (draw(0), draw(1)))
    lr = rates(optimizer, 0.01)
    updated, state = optimizer.update(grads, optimizer.init(params), params, lr)
    optimizer.update_(grads, state, updated, lr)
    assert {path: leaf.dtype for path, leaf in updated.items()} == KINDS
    assert all(tensor.is_meta for tensor in tensors(state))


@pytest.mark.row(55)
@each_wrapper
@pytest.mark.parametrize("name", ["sgd", "adamw", "groups", "wrapped"])
def test_vmap_over_lr_equals_a_loop(wrap: Any, name: str) -> None:
    optimizer = wrap(INNERS[name])
    lrs = torch.tensor([0.0, 0.01, 0.1])
    found = torch.func.vmap(lambda lr: run_rule(optimizer, 4, lr)[0])(lrs)
    for index, lr in enumerate(lrs):
        expected, _ = run_rule(optimizer, 4, lr)
        for path, leaf in expected.items():
            assert found[path].dtype == leaf.dtype
            bound = 2.0**-7 if leaf.dtype == torch.bfloat16 else 1e-6
            torch.testing.assert_close(found[path][index], leaf, rtol=bound, atol=bound)


@each_wrapper
@each_inner
def test_the_state_round_trips_through_a_checkpoint(
    wrap: Any, inner: Optimizer, tmp_path: Path
) -> None:
    optimizer = wrap(inner)
    params, state = run_rule(optimizer, 3)
    ft.save(tmp_path / "saved", {"params": params, "optimizer": state})
    loaded = ft.load(tmp_path / "saved", like={"params": params, "optimizer": state})
    assert ft.tree.equal(loaded["optimizer"], state)
    lr = rates(optimizer, 0.01)
    expected = optimizer.update(grads_of(3), state, params, lr)
    found = optimizer.update(grads_of(3), loaded["optimizer"], loaded["params"], lr)
    assert as_bytes(found) == as_bytes(expected)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return (model(inputs) - targets).square().mean()


def make(optimizer: Optimizer) -> ft.Program:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return ft.program(model, loss, optimizer)


def batches() -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 3, generator=source), torch.randn(5, 2, generator=source)) for _ in range(3)
    ]


@pytest.mark.row(32)
@each_wrapper
@pytest.mark.parametrize("name", ["adamw", "from_torch", "wrapped"])
def test_a_resumed_run_is_the_one_never_stopped(wrap: Any, name: str, tmp_path: Path) -> None:
    program = make(wrap(INNERS[name]))
    whole = ft.fit(program, batches(), until=ft.Steps(7)).state
    ft.fit(program, batches(), until=ft.Steps(4), directory=tmp_path / "run")
    resumed = ft.fit(program, batches(), until=ft.Steps(7), directory=tmp_path / "run").state
    assert resumed.counters.step == 7
    assert ft.tree.equal(resumed.params, whole.params)
    assert ft.tree.equal(resumed.optimizer, whole.optimizer)


@each_wrapper
@each_inner
def test_a_donated_program_has_the_same_numbers(wrap: Any, inner: Optimizer) -> None:
    inner = SGD(0.1, momentum=0.9) if "frozen" in repr(inner) else inner
    program = make(wrap(inner))
    pure, consumed = program.init(), program.init()
    for batch in batches() * 2:
        pure, _ = program.train_step(pure, batch)
        consumed, _ = ft.donated(program).train_step(consumed, batch)
    assert not ft.tree.equal(pure.params, program.init().params)
    assert ft.tree.equal(pure.params, consumed.params)
    assert ft.tree.equal(pure.optimizer, consumed.optimizer)
    evaluated = [program.eval_step(state, batches()[0])["loss"] for state in (pure, consumed)]
    assert torch.equal(*evaluated)


@each_wrapper
@each_inner
def test_lr_and_lazy_state_are_those_of_the_optimizer_inside(wrap: Any, inner: Optimizer) -> None:
    optimizer = wrap(inner)
    assert isinstance(optimizer, Optimizer)
    assert optimizer.lr == inner.lr
    assert optimizer.lazy_state == inner.lazy_state
    frozen = "frozen" if "Frozen" in repr(inner) else None
    assert optimizer.trained(draw(0)) == [path for path in KINDS if path != frozen]


@each_wrapper
def test_no_leaf_and_no_gradient_are_accepted(wrap: Any) -> None:
    optimizer = wrap(SGD(0.1))
    assert optimizer.update({}, optimizer.init({}), {}, 0.1)[0] == {}
    params = draw(0)
    updated, _ = optimizer.update({}, optimizer.init(params), copy.deepcopy(params), 0.1)
    assert as_bytes(updated) == as_bytes(params)
