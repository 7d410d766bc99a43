"""All kernels of a graph in one library do what Inductor's own libraries do."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.codegen import common
from torch._inductor.utils import fresh_cache
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.errors import FunctrainWarning
from functrain.transforms.graph import inductor, kernels
from functrain.transforms.graph.kernels import Kernel, Kernels

Function = Callable[..., list[Tensor]]


def _work(x: Tensor, table: Tensor, index: Tensor) -> list[Tensor]:
    """Return results of many kernels: reductions, products, an index, integers, a sort."""
    hidden = torch.tanh(x @ table)
    rows = table[index].softmax(-1)
    order = torch.sort(hidden.sum(0)).values
    return [torch.relu(hidden @ hidden.T).exp().mean(), rows.sum(0), order, index * 3 + 1]


def _two(x: Tensor, table: Tensor, index: Tensor) -> list[Tensor]:
    """Return the result of two kernels, with a sort between them."""
    return [torch.sort((x * table).sum(0)).values.exp()]


def compile_in_memory(graph: GraphModule, inputs: list[Tensor], options: Any) -> Any:
    return inductor.compile_in_memory(graph, inputs, options)[0]


def _inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, table = (torch.randn(17, 17, generator=generator) for _ in range(2))
    return [x, table, torch.randint(0, 17, (9,), generator=generator)]


@pytest.mark.parametrize("work", [_two, pytest.param(_work, marks=pytest.mark.long)])
def test_the_same_bytes_as_inductors_own_libraries(work: Function) -> None:
    graph = make_fx(work)(*_inputs())
    ours = compile_in_memory(graph, _inputs(), {})(*_inputs())
    with torch._inductor.config.patch(cpp_cache_precompile_headers=False):
        theirs = torch._inductor.standalone_compile(
            graph, _inputs(), dynamic_shapes="from_example_inputs"
        )(*_inputs())
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_one_compiler_thread_does_not_wait_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.codecache, "LOCK_TIMEOUT", 5)
    graph = make_fx(_two)(*_inputs())
    with fresh_cache(), torch._inductor.config.patch(compile_threads=1):
        compiled = compile_in_memory(graph, _inputs(), {})
    assert torch.allclose(compiled(*_inputs())[0], graph(*_inputs())[0])


def test_a_large_graph_has_several_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    load, sources = kernels.Libraries.load_async, list[str]()

    def noted(source: str, **options: Any) -> Any:
        sources.append(source)
        return load(source, **options)

    monkeypatch.setattr(kernels.Libraries, "load_async", noted)
    monkeypatch.setattr(kernels, "_TOGETHER", 1)

    def work(*given: Tensor) -> list[Tensor]:  # code that no other test has loaded
        return [one + 2 for one in _two(*given)]

    found = compile_in_memory(make_fx(work)(*_inputs()), _inputs(), {})(*_inputs())
    for one, expected in zip(found, work(*_inputs()), strict=True):
        torch.testing.assert_close(one, expected)
    assert len(sources) > 1


@pytest.mark.parametrize("part", ["init_backend_registration", "DeviceCodegen"])
def test_another_inductor_compiles_in_its_own_way(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = make_fx(_two)(*_inputs())
    ours = compile_in_memory(graph, _inputs(), {})(*_inputs())
    changed = SimpleNamespace(**{name: getattr(common, name) for name in dir(common)})
    delattr(changed, part)
    monkeypatch.setattr(kernels, "common", changed)
    with pytest.warns(FunctrainWarning, match=f"each kernel by itself.*has no attribute '{part}'"):
        theirs = compile_in_memory(graph, _inputs(), {})(*_inputs())
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_what_no_inductor_compiles_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch._inductor, "standalone_compile", broken)
    with pytest.raises(RuntimeError, match="no compiler"):
        compile_in_memory(make_fx(_work)(*_inputs()), _inputs(), {})


def test_kernels_of_one_library_take_numbers_and_check_their_count() -> None:
    fill = """
        #include <torch/csrc/inductor/cpp_prefix.h>
        extern "C" void kernel(float* out, const int64_t size)
        { for (int64_t i = 0; i < size; ++i) out[i] = VALUE; }
    """
    types = ["float*", "const int64_t"]
    sources = {f"fill_{n}": Kernel(types, fill.replace("VALUE", str(n))) for n in (1, 2)}
    scope = {**sources, "other": 3}
    # A new machine would compile a header first, for ten seconds.
    with torch._inductor.config.patch(cpp_cache_precompile_headers=False):
        Kernels().wait(scope)
    out = torch.zeros(4)
    for n in (1, 2):
        scope[f"fill_{n}"](out, 3)
        assert out.tolist() == [n, n, n, 0]
    assert scope["other"] == 3
    with pytest.raises(RuntimeError, match="expected 2 arguments"):
        scope["fill_1"](out)


def test_the_users_torch_compile_is_left_alone() -> None:
    with kernels.one_library():
        pass
    from torch._inductor.codegen.common import get_wrapper_codegen_for_device
    from torch._inductor.codegen.wrapper import PythonWrapperCodegen

    assert get_wrapper_codegen_for_device("cpu") is PythonWrapperCodegen
