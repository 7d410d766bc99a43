"""Properties of all rule-and-kernel optimizers: state, purity, layouts, missing gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain import optim
from functrain.errors import ConfigurationError

OPTIMIZERS = [
    optim.SGD(),
    optim.SGD(momentum=0.9, dampening=0.1),
    optim.Adam(amsgrad=True),
    optim.AdamW(weight_decay=0.1),
    optim.RAdam(weight_decay=0.1, decoupled_weight_decay=True),
    optim.NAdam(weight_decay=0.1, decoupled_weight_decay=True),
    optim.RMSprop(momentum=0.9, centered=True),
    optim.Adagrad(weight_decay=0.1),
    optim.Adadelta(),
    optim.Adamax(weight_decay=0.1),
    optim.Lion(weight_decay=0.1),
    optim.LAMB(weight_decay=0.1),
    optim.ScheduleFreeSGD(weight_decay=0.1),
    optim.ScheduleFreeAdamW(weight_decay=0.1),
]
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)


def draw(seed: int, **kinds: torch.dtype) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {path: torch.randn(4, 3, dtype=dtype) for path, dtype in kinds.items()}


def leaves(tree: object) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree
    return [leaf for item in items for leaf in leaves(item)]  # type: ignore[attr-defined]


def as_bytes(tree: object) -> list[bytes]:
    return [leaf.numpy().tobytes() for leaf in leaves(tree)]


@every_optimizer
def test_state_is_one_step_and_slots_like_the_params(optimizer: optim.Optimizer) -> None:
    params = draw(0, a=torch.float32, b=torch.bfloat16)
    params["c"] = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = optimizer.init(params)
    step = state.pop("step")
    assert (step.shape, step.dtype, step.item()) == ((), torch.float32, 0)
    for name, slot in state.items():
        if isinstance(slot, Tensor):
            assert slot.shape == ()
            continue
        assert list(slot) == list(params)
        for path, value in slot.items():
            assert (value.dtype, value.stride()) == (params[path].dtype, params[path].stride())
            assert torch.equal(value, params[path]) if name in ("z", "ax") else not value.any()
            assert value.data_ptr() != params[path].data_ptr()


@pytest.mark.row(1)
@every_optimizer
def test_update_is_pure(optimizer: optim.Optimizer) -> None:
    params, grads = draw(0, a=torch.float32, b=torch.float32), draw(1, a=torch.float32)
    params, state = optimizer.update(grads, optimizer.init(params), params, 0.1)
    inputs = {"params": params, "grads": grads, "state": state}
    before, rng = as_bytes(inputs), torch.get_rng_state()
    first = optimizer.update(grads, state, params, 0.1)
    second = optimizer.update(grads, state, params, 0.1)
    assert as_bytes(inputs) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert as_bytes(dict(enumerate(first))) == as_bytes(dict(enumerate(second)))


@every_optimizer
def test_kernel_keeps_the_tensors_and_reads_the_gradients_only(optimizer: optim.Optimizer) -> None:
    params, grads = draw(0, a=torch.float32, b=torch.float32), draw(1, a=torch.float32)
    state = optimizer.init(params)
    addresses, before = [leaf.data_ptr() for leaf in leaves(state)], as_bytes(grads)
    optimizer.update_(grads, state, params, 0.1)
    state.pop("per_parameter", None)  # made for b, which had no gradient
    assert [leaf.data_ptr() for leaf in leaves(state)] == addresses
    assert as_bytes(grads) == before


@every_optimizer
def test_a_leaf_without_gradient_is_carried_through(optimizer: optim.Optimizer) -> None:
    params, grads = draw(0, a=torch.float32, b=torch.float32), draw(1, a=torch.float32)
    updated, state = optimizer.update(grads, optimizer.init(params), params, 0.1)
    owned, owned_state = copy.deepcopy(params), optimizer.init(params)
    optimizer.update_(grads, owned_state, owned, 0.1)
    assert torch.equal(updated["b"], params["b"])
    assert torch.equal(owned["b"], params["b"])
    assert not torch.equal(updated["a"], params["a"])
    assert state["step"] == owned_state["step"] == 1


@every_optimizer
def test_no_gradient_at_all_counts_as_a_step(optimizer: optim.Optimizer) -> None:
    params = draw(0, a=torch.float32)
    updated, state = optimizer.update({}, optimizer.init(params), params, 0.1)
    owned_state = optimizer.init(params)
    optimizer.update_({}, owned_state, params, 0.1)
    assert torch.equal(updated["a"], params["a"])
    assert state["step"] == owned_state["step"] == 1


def layouts() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    image = torch.randn(4, 3, 5, 5)
    return [
        (torch.randn(4, 3), torch.randn(3, 4).t()),
        (torch.randn(4, 3).t(), torch.randn(3, 4)),
        (torch.randn(4, 3), torch.randn(3).expand(4, 3)),
        (image.to(memory_format=torch.channels_last), torch.randn(4, 3, 5, 5)),
        (image, torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)),
        (torch.randn(8, 3)[::2], torch.randn(4, 3)),
    ]


@every_optimizer
@pytest.mark.parametrize("index", range(len(layouts())))
def test_kernel_minds_memory_layout(optimizer: optim.Optimizer, index: int) -> None:
    param, grad = layouts()[index]
    expected = {"a": param.contiguous(), "b": torch.ones(2)}
    found = {"a": param, "b": torch.ones(2)}
    expected_state, state = optimizer.init(expected), optimizer.init(found)
    for _ in range(2):
        optimizer.update_(
            {"a": grad.contiguous(), "b": torch.ones(2)}, expected_state, expected, 0.1
        )
        optimizer.update_({"a": grad, "b": torch.ones(2)}, state, found, 0.1)
    torch.testing.assert_close(found["a"], expected["a"], rtol=1e-6, atol=1e-6)


def test_adafactor_minds_memory_layout_too() -> None:
    torch.manual_seed(0)
    image = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    found, expected = (
        {"a": image, "b": torch.ones(2)},
        {"a": image.contiguous(), "b": torch.ones(2)},
    )
    adafactor = optim.Adafactor()
    for params in (found, expected):
        grads = {"a": torch.ones_like(params["a"]), "b": torch.ones(2)}
        adafactor.update_(grads, adafactor.init(params), params, 0.1)
    torch.testing.assert_close(found["a"], expected["a"], rtol=1e-6, atol=1e-6)


@every_optimizer
def test_kernel_takes_mixed_dtypes(optimizer: optim.Optimizer) -> None:
    kinds = {"a": torch.float32, "b": torch.bfloat16, "c": torch.float64, "d": torch.complex64}
    params, grads = draw(0, **kinds), draw(1, **kinds)
    owned, state = copy.deepcopy(params), optimizer.init(params)
    optimizer.update_(grads, state, owned, 0.1)
    for path in kinds:
        alone, only = optimizer.init({path: params[path]}), {path: params[path].clone()}
        optimizer.update_({path: grads[path]}, alone, only, 0.1)
        assert torch.equal(owned[path], only[path])
    pure, pure_state = optimizer.update(grads, optimizer.init(params), params, 0.1)
    assert {path: param.dtype for path, param in pure.items()} == kinds
    assert all(value.dtype == kinds[path] for path, value in _slots(pure_state))


def _slots(state: dict[str, dict[str, Tensor]]) -> list[tuple[str, Tensor]]:
    slots = [slot for slot in state.values() if not isinstance(slot, Tensor)]
    return [item for slot in slots for item in slot.items()]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optim.Adam(lr=0.1, amsgrad=True), torch.optim.Adam),
        (optim.SGD(lr=0.1, momentum=0.9), torch.optim.SGD),
        (optim.RAdam(lr=0.1), torch.optim.RAdam),
    ],
)
def test_complex_params_as_in_torch(ours: optim.Optimizer, theirs: type) -> None:
    params = draw(0, a=torch.complex128)
    options = {"amsgrad": True} if theirs is torch.optim.Adam else {}
    options |= {"momentum": 0.9} if theirs is torch.optim.SGD else {}
    theirs_param = torch.nn.Parameter(params["a"].clone())
    optimizer = theirs([theirs_param], lr=0.1, **options)
    state = ours.init(params)
    for seed in range(10):
        grads = draw(seed, a=torch.complex128)
        theirs_param.grad = grads["a"].clone()
        optimizer.step()
        params, state = ours.update(grads, state, params, 0.1)
    torch.testing.assert_close(params["a"], theirs_param.detach(), rtol=1e-12, atol=0)


@every_optimizer
def test_eval_params_are_the_params(optimizer: optim.Optimizer) -> None:
    params = draw(0, a=torch.float32)
    averages = isinstance(optimizer, optim.ScheduleFreeSGD | optim.ScheduleFreeAdamW)
    assert (optimizer.eval_params(optimizer.init(params), params) is params) != averages
    assert not optimizer.lazy_state


@every_optimizer
def test_satisfies_the_protocol(optimizer: optim.Optimizer) -> None:
    assert isinstance(optimizer, optim.Optimizer)


@every_optimizer
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_sparse_gradient_is_refused_by_name(
    optimizer: optim.Optimizer, layout: torch.layout
) -> None:
    params = draw(0, a=torch.float32, b=torch.float32)
    grads = {**draw(1, a=torch.float32), "b": torch.eye(4, 3).to_sparse(layout=layout)}
    state = optimizer.init(params)
    before = as_bytes([params, state])
    for update in (optimizer.update, optimizer.update_):
        with pytest.raises(ConfigurationError, match=r"'b' is of layout torch.sparse_c"):
            update(grads, state, params, 0.1)
    assert as_bytes([params, state]) == before


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam])
def test_from_torch_takes_the_sparse_gradients_that_the_class_takes(cls: type) -> None:
    params, grads = draw(0, a=torch.float32), {"a": torch.eye(4, 3).to_sparse()}
    optimizer = optim.from_torch(cls, lr=0.1)  # type: ignore[arg-type]
    updated, _ = optimizer.update(grads, optimizer.init(params), params, 0.1)
    trained = torch.nn.Parameter(params["a"].clone())
    theirs = cls([trained], lr=0.1)
    trained.grad = grads["a"]
    theirs.step()
    assert torch.equal(updated["a"], trained.detach())


@every_optimizer
def test_a_gradient_of_another_shape_or_path_is_refused_before_anything_changes(
    optimizer: optim.Optimizer,
) -> None:
    params = draw(0, a=torch.float32, b=torch.float32)
    state = optimizer.init(params)
    before = as_bytes([params, state])
    good = torch.ones(4, 3)
    for grads, said in [
        ({"a": good, "b": torch.ones(2)}, r"'b' has shape \(2,\), and the parameter \(4, 3\)"),
        ({"a": good, "c": good}, r"a gradient for 'c', which is not among the 2 parameters"),
    ]:
        for update in (optimizer.update, optimizer.update_):
            with pytest.raises(ConfigurationError, match=said):
                update(grads, state, params, 0.1)
    assert as_bytes([params, state]) == before


@every_optimizer
def test_a_state_of_another_size_does_not_reach_a_kernel(optimizer: optim.Optimizer) -> None:
    if not optimizer.slots:  # type: ignore[attr-defined]
        pytest.skip("it remembers nothing")
    state = optimizer.init({"a": torch.zeros(2)})
    params, grads = {"a": torch.zeros(50)}, {"a": torch.ones(50)}
    with pytest.raises(RuntimeError, match="size of tensor"):
        optimizer.update_(grads, state, params, 0.1)


@every_optimizer
def test_gradients_of_a_wider_dtype_are_accepted(optimizer: optim.Optimizer) -> None:
    params, wide = draw(0, a=torch.float32), draw(1, a=torch.float64)
    owned, state = copy.deepcopy(params), optimizer.init(params)
    optimizer.update_(wide, state, owned, 0.1)
    expected, _ = optimizer.update(wide, optimizer.init(params), params, 0.1)
    assert owned["a"].dtype == torch.float32
    torch.testing.assert_close(owned["a"], expected["a"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [8, 16, 33, 4096])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_trains_half_precision(dtype: torch.dtype, size: int, options: dict[str, Any]) -> None:
    start, grads = torch.linspace(-1, 1, size).to(dtype), torch.linspace(1, 2, size).to(dtype)
    trained = torch.nn.Parameter(start.clone())
    theirs = torch.optim.SGD([trained], lr=0.1, foreach=True, **options)
    params, sgd = {"w": start.clone()}, optim.SGD(0.1, **options)
    state = sgd.init(params)
    for _ in range(5):
        trained.grad = grads.clone()
        theirs.step()
        sgd.update_({"w": grads}, state, params, 0.1)
    assert torch.equal(params["w"], trained.detach())
    assert (params["w"] < start - 0.3).all()


@pytest.mark.parametrize(
    "cls", [optim.RAdam, optim.LAMB, optim.ScheduleFreeAdamW, optim.NAdam, optim.Adam]
)
def test_tensors_as_hyperparameters_in_place(cls: Any) -> None:
    numbers, tensors = cls(betas=(0.9, 0.99)), cls(betas=(torch.tensor(0.9), torch.tensor(0.99)))
    results = []
    for optimizer in (numbers, tensors):
        params = draw(0, a=torch.float32)
        state = optimizer.init(params)
        for seed in range(3):
            optimizer.update_(draw(seed, a=torch.float32), state, params, 0.1)
        results.append(params["a"])
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@every_optimizer
def test_a_conjugated_gradient(optimizer: optim.Optimizer) -> None:
    params, grads = draw(0, a=torch.complex64), draw(1, a=torch.complex64)
    conjugated = {"a": grads["a"].conj()}
    assert conjugated["a"].is_conj()
    found, _ = optimizer.update(conjugated, optimizer.init(params), params, 0.1)
    plain = {"a": grads["a"].conj().resolve_conj()}
    expected, _ = optimizer.update(plain, optimizer.init(params), params, 0.1)
    assert torch.equal(found["a"], expected["a"])
