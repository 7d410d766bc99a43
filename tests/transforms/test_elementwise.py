"""Updates taken out of a graph write the same values as the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.transforms.graph.elementwise import split
from functrain.transforms.graph.inductor import begin_update
from functrain.transforms.graph.kept import load_update
from functrain.transforms.graph.kernels import copy_update

Function = Callable[..., list[Tensor]]


def _traced(function: Function, inputs: list[Tensor]) -> GraphModule:
    return make_fx(function, tracing_mode="fake")(*inputs)


def _copies(inputs: list[Tensor]) -> list[Tensor]:
    return [one.clone() for one in inputs]


def _divided(function: Function, inputs: list[Tensor]) -> Callable[..., Any]:
    graph = _traced(function, inputs)
    updates = split(graph)
    assert updates is not None
    return updates.after(graph, begin_update(updates)().kernels()[0])


def _same(function: Function, inputs: list[Tensor]) -> None:
    mine, theirs = _copies(inputs), _copies(inputs)
    returned, expected = _divided(function, inputs)(*mine), function(*theirs)
    for one, other in zip([*returned, *mine], [*expected, *theirs], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-7, equal_nan=True)


def _is_whole(function: Function, inputs: list[Tensor]) -> None:
    """Assert that nothing is taken out of a graph."""
    assert split(_traced(function, inputs)) is None


SPECIAL = torch.tensor([0.0, -0.0, 1.5, -2.0, 0.25, 1e-30, torch.inf, -torch.inf, torch.nan, 3.0])
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "add": lambda a, b, s: torch.add(a, b, alpha=0.3) + s + 2,
    "sub": lambda a, b, s: torch.sub(a, b, alpha=0.3) - s - 2,
    "rsub": lambda a, b, s: 1 - a,
    "mul": lambda a, b, s: a * b * s * 0.7,
    "div": lambda a, b, s: a / b / s / 3,
    "addcmul": lambda a, b, s: torch.addcmul(a, b, a, value=0.5),
    "addcdiv": lambda a, b, s: torch.addcdiv(a, b, a.abs() + 1, value=0.5),
    "lerp": lambda a, b, s: a.lerp(b, s).lerp(b, 0.7).lerp(a, 0.2),
    "neg": lambda a, b, s: -a,
    "abs": lambda a, b, s: a.abs(),
    "sqrt": lambda a, b, s: a.sqrt() + b.abs().sqrt(),
    "reciprocal": lambda a, b, s: a.reciprocal(),
    "sign": lambda a, b, s: a.sign() * 2,
    "maximum": lambda a, b, s: torch.maximum(a, b),
    "minimum": lambda a, b, s: torch.minimum(a, b),
    "where": lambda a, b, s: torch.where(a > b, a, s),
    "powers": lambda a, b, s: a**2 + a**3 + a.abs() ** 0.5 + b**1,
    "clamp": lambda a, b, s: a.clamp(-1, 1) + b.clamp(min=0) - a.clamp(max=0.5),
    "clamp beyond": lambda a, b, s: a.clamp(1, -1),
    "equal": lambda a, b, s: torch.where(a == b, a, s) + torch.where(a != 0, b, s),
    "greater": lambda a, b, s: torch.where(a > s, a, b) + torch.where(a >= 0, b, s),
    "less": lambda a, b, s: torch.where(a < b, a, b) + torch.where(a <= s, b, s),
    "logic": lambda a, b, s: (((a > 0) & (b > 0)) | ~(a > 1)).logical_not().to(a.dtype),
    "constants": lambda a, b, s: torch.zeros_like(a) + torch.ones_like(b) * a,
    "infinities": lambda a, b, s: a + float("inf") - float("-inf") * b,
    "dtypes": lambda a, b, s: (a.double() * s + 1).to(a.dtype),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_operation_is_torchs(dtype: torch.dtype) -> None:
    def function(one: Tensor, other: Tensor, number: Tensor, *params: Tensor) -> list[Tensor]:
        for param, operation in zip(params, OPERATIONS.values(), strict=True):
            param.copy_(operation(one, other, number))
        return [other.sum()]

    values = torch.cartesian_prod(SPECIAL, SPECIAL).to(dtype)
    given = [values[:, 0].contiguous(), values[:, 1].contiguous(), torch.tensor(0.3).double()]
    inputs = [*given, *(torch.zeros(len(values), dtype=dtype) for _ in OPERATIONS)]
    found = split(_traced(function, inputs))
    assert found is not None
    assert found.source.count("{rule") == len(OPERATIONS)
    _same(function, inputs)


def test_parameters_of_other_sizes_share_a_rule() -> None:
    def function(*given: Tensor) -> list[Tensor]:
        *tensors, rate = given
        params, moments = tensors[:3], tensors[3:]
        grads = [param.sin() for param in params]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        for param, moment, grad in zip(params, moments, grads, strict=True):
            mean = moment * 0.9 + grad / norm
            moment.copy_(mean)
            param.copy_(param - rate * mean)
        return [norm]

    shapes = [(3, 4), (5,), (40, 50)]
    inputs = [torch.randn(shape) for shape in shapes * 2] + [torch.tensor(0.1)]
    _same(function, inputs)
    graph = _traced(function, inputs)
    found = split(graph)
    assert found is not None
    assert (found.source.count("static void rule"), found.source.count("{rule0, ")) == (1, 3)
    copies = [one for one in graph.graph.nodes if one.target is torch.ops.aten.copy_.default]
    assert not copies


def test_threads_update_parts_of_a_parameter() -> None:
    def function(param: Tensor) -> list[Tensor]:
        param.copy_(param * 2 + 1)
        return []

    inputs, before = [torch.randn(70_001)], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        found = split(_traced(function, inputs))
        assert found is not None
        assert "num_threads(3)" in found.source
        _same(function, inputs)
    finally:
        torch.set_num_threads(before)


def test_a_transposed_parameter_is_one_loop_and_another_layout_is_none() -> None:
    def function(param: Tensor, grad: Tensor) -> list[Tensor]:
        param.copy_(param - 0.1 * grad)
        return [grad.sum()]

    transposed = torch.randn(4, 3).t()
    inputs = [transposed, torch.randn(4, 3).t()]
    mine, theirs = [one.clone() for one in inputs], [one.clone() for one in inputs]
    assert mine[0].stride() == (1, 3)
    _divided(function, mine)(*mine)
    function(*theirs)
    assert torch.equal(mine[0], theirs[0])
    _is_whole(function, [transposed, torch.randn(3, 4)])


def _read_later(param: Tensor, other: Tensor) -> list[Tensor]:
    param.copy_(param * 2)
    return [param.sum()]


def _read_through_a_view(param: Tensor, other: Tensor) -> list[Tensor]:
    view = param.view(-1)
    param.copy_(param * 2)
    return [view.sum()]


def _written_twice(param: Tensor, other: Tensor) -> list[Tensor]:
    param.add_(1)
    param.copy_(param * 2)
    return []


def _of_one_written_before(param: Tensor, other: Tensor) -> list[Tensor]:
    other.add_(1)
    param.copy_(param + other)
    return []


def _returned(param: Tensor, other: Tensor) -> list[Tensor]:
    param.copy_(param * 2)
    return [param]


@pytest.mark.parametrize(
    "function",
    [_read_later, _read_through_a_view, _written_twice, _of_one_written_before, _returned],
    ids=lambda function: function.__name__,
)
def test_an_update_that_cannot_wait_stays_in_the_graph(function: Function) -> None:
    _is_whole(function, [torch.randn(2, 3), torch.randn(2, 3)])


def test_two_that_read_each_other_stay_unless_they_share_a_formula() -> None:
    def apart(one: Tensor, other: Tensor) -> list[Tensor]:
        new = one * 2 + other, other * 3 - one
        one.copy_(new[0])
        other.copy_(new[1])
        return []

    def together(one: Tensor, other: Tensor) -> list[Tensor]:
        both = one + other
        new = both * 2 - other, both * 3 - one
        one.copy_(new[0])
        other.copy_(new[1])
        return []

    _is_whole(apart, [torch.randn(4), torch.randn(4)])
    _same(together, [torch.randn(4), torch.randn(4)])


def test_a_number_that_is_written_to_is_read_before() -> None:
    def function(param: Tensor, step: Tensor) -> list[Tensor]:
        later = step + 1
        new = param / later
        step.copy_(later)
        param.copy_(new)
        return []

    _same(function, [torch.randn(4), torch.tensor(2.0)])


def test_equal_numbers_of_which_one_is_written_to_stay_two() -> None:
    def function(param: Tensor, step: Tensor) -> list[Tensor]:
        sums, rates = [torch.full((), 2.0) for _ in range(2)], [step * 2 for _ in range(2)]
        sums[0].add_(step)
        rates[1].view(()).mul_(3)
        param.copy_(param * rates[0] + sums[1])
        return [*sums, *rates]

    _same(function, [torch.randn(4), torch.tensor(2.0)])


def test_a_gradient_that_is_another_parameter_is_its_old_value() -> None:
    def function(one: Tensor, other: Tensor) -> list[Tensor]:
        grads = other.clone(), one.clone()
        norm = torch.stack([grads[0].norm(), grads[1].norm()]).norm()
        one.copy_(one - grads[0] / norm)
        other.copy_(other - grads[1] / norm)
        return [norm]

    _same(function, [torch.randn(4), torch.randn(4)])


def test_a_library_that_is_kept_is_loaded_again(tmp_path: Path) -> None:
    def function(param: Tensor) -> list[Tensor]:
        param.copy_(param * 2 + 1)
        return []

    found = split(_traced(function, [torch.ones(3)]))
    assert found is not None
    path = tmp_path / "step.so"
    copy_update(begin_update(found)(), path)
    param = torch.ones(3)
    load_update(path)(param)
    assert param.tolist() == [3, 3, 3]
    with pytest.raises(RuntimeError, match="expected 1 arguments"):
        load_update(path)(param, param)
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 4, len(whole) // 2, len(whole) - 1):
        part = tmp_path / f"{size}.so"  # of its own, as the whole one stays loaded from its file
        part.write_bytes(whole[:size])
        with pytest.raises(ImportError, match="expected a library with its checksum"):
            load_update(part)
    with pytest.raises(ImportError):
        load_update(tmp_path / "missing.so")


def test_a_graph_that_returns_another_layout_is_refused_before_the_update() -> None:
    def function(param: Tensor) -> list[Tensor]:
        param.copy_(param - param.flip(0))
        return []

    graph, param = _traced(function, [torch.ones(2, 3)]), torch.ones(2, 3)
    found = split(graph)
    assert found is not None
    updates = found.after(lambda *_: [torch.ones(3, 2).t()], begin_update(found)().kernels()[0])
    with pytest.raises(RuntimeError, match="expected tensors laid out as"):
        updates(param)
    assert param.tolist() == [[1, 1, 1], [1, 1, 1]]
