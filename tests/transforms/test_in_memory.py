"""Code compiled in memory is loaded by the next process, and only if it is the same."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from processes import run
from torch import Tensor
from torch._inductor.utils import clear_caches, fresh_cache
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.transforms.graph import digest, inductor, kept, kernels
from functrain.transforms.graph.digest import settings_digest
from functrain.transforms.graph.elementwise import split
from functrain.transforms.graph.in_memory import compiled_in_memory
from functrain.transforms.graph.standalone import is_plain, scope_of_torch, standalone

pytestmark = pytest.mark.row(50)

Function = Callable[..., list[Tensor]]


class Compilations:
    """Counts what Inductor compiles."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.compile = inductor.compile_in_memory
        monkeypatch.setattr(inductor, "compile_in_memory", self)

    def __call__(self, *given: Any) -> Any:
        self.count += 1
        return self.compile(*given)


@pytest.fixture(scope="module")
def _cache() -> Iterator[None]:
    """Give these tests a cache of their own, in which a kernel is compiled once for all of them."""
    with fresh_cache():
        yield


@pytest.fixture
def compilations(_cache: None, monkeypatch: pytest.MonkeyPatch) -> Compilations:
    for path in entries():
        path.unlink()
    clear_caches()  # of what this process has loaded
    return Compilations(monkeypatch)


def entries() -> list[Path]:
    return list((Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "functrain").glob("*"))


def traced(function: Function, given: list[Tensor]) -> GraphModule:
    return make_fx(function, tracing_mode="fake")(*given)


def compiled(function: Function, given: list[Tensor], **options: Any) -> Callable[..., Any]:
    graph = traced(function, given)
    updates = split(graph)
    assert (updates is not None) is (function is step)
    return compiled_in_memory(graph, given, options, updates)


def step(weight: Tensor, x: Tensor, image: Tensor, kernel: Tensor) -> list[Tensor]:
    """Make products, a convolution, random numbers, and a write to an input."""
    hidden = torch.tanh(F.dropout(x @ weight, 0.5))
    folded = F.conv2d(image, kernel, padding=1).relu().sum((0, 2, 3))
    product = torch.addmm(weight[0], x, weight)
    weight.copy_(weight - 0.1 * product)
    return [hidden.T @ hidden, folded, product]


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(20, 20), (20, 20), (2, 1, 6, 6), (3, 1, 3, 3)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def sine(x: Tensor) -> list[Tensor]:
    return [x.sin() + 1]


def results(call: Callable[..., Any]) -> list[Tensor]:
    given = inputs()
    torch.manual_seed(0)
    return [*call(*given), *given]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def test_it_is_compiled_once_and_loaded_with_the_same_results(compilations: Compilations) -> None:
    first = results(compiled(step, inputs()))
    assert len(entries()) == 1
    again = results(compiled(step, inputs()))
    assert compilations.count == 1
    assert same(first, again)
    expected = traced(lambda *given: step(*given)[2:], inputs())(*inputs())
    torch.testing.assert_close(again[2], expected[0])


def test_results_need_no_gradients(compilations: Compilations) -> None:
    for _ in range(2):
        call = compiled(lambda x, y: [x @ y], [torch.ones(2, 2), torch.ones(2, 2)])
        (found,) = call(torch.ones(2, 2, requires_grad=True), torch.ones(2, 2))
        assert not found.requires_grad
        assert torch.is_grad_enabled()
    assert compilations.count == 1


@pytest.mark.parametrize("size", [0, 10, 40, -1])
def test_a_damaged_entry_is_compiled_again(compilations: Compilations, size: int) -> None:
    compiled(sine, [torch.ones(8)])
    (path,) = entries()
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    (found,) = compiled(sine, [torch.ones(8)])(torch.ones(8))
    torch.testing.assert_close(found, torch.ones(8).sin() + 1)
    assert compilations.count == 2


def test_a_damaged_library_is_not_loaded(compilations: Compilations, tmp_path: Path) -> None:
    compiled(sine, [torch.ones(8)])
    (path,) = entries()
    assert kept.load(path) is not None
    content = path.read_bytes()
    (name,) = {part for part in content.decode().split('"') if part.endswith(".so")}
    # A library that is loaded stays mapped to its file, which must not change.
    copied = Path(shutil.copy(name, tmp_path / "other.so"))
    library = kept.Library.at(str(copied), ["kernel"])
    kept.save(path, "call = None", [library])
    copied.write_bytes(copied.read_bytes()[:-1])
    assert kept.load(path) is None
    assert not path.exists()
    with pytest.raises(ImportError, match="missing or has changed"):
        library.load()


def test_code_is_not_loaded_from_where_others_can_write(compilations: Compilations) -> None:
    compiled(sine, [torch.ones(8)])
    (path,) = entries()
    path.parent.chmod(0o777)
    compiled(sine, [torch.ones(8)])
    path.parent.chmod(0o700)
    assert compilations.count == 2


def _name(function: Function, *given: Tensor, **options: Any) -> str:
    return digest.digest(traced(function, [*given]), [*given], options)


def test_equal_graphs_have_one_name() -> None:
    assert _name(lambda x: [x + 1], torch.ones(3)) == _name(lambda x: [1 + x], torch.zeros(3))


def _plus_one(x: Tensor) -> list[Tensor]:
    return [x + 1]


def _plus_two(x: Tensor) -> list[Tensor]:
    return [x + 2]


@pytest.mark.parametrize(
    ("function", "given", "options"),
    [
        (_plus_two, torch.ones(3), {}),
        (_plus_one, torch.ones(4), {}),
        (_plus_one, torch.ones(3, dtype=torch.float64), {}),
        (_plus_one, torch.ones(6)[::2], {}),
        (_plus_one, torch.ones(3), {"max_autotune": True}),
    ],
    ids=["constant", "shape", "dtype", "strides", "options"],
)
def test_other_code_has_another_name(
    function: Function, given: Tensor, options: dict[str, Any]
) -> None:
    assert _name(function, given, **options) != _name(_plus_one, torch.ones(3))


def test_functions_of_a_user_have_no_name() -> None:
    """Another process may have another function at the same address."""
    one, other = (_name(_plus_one, torch.ones(3), joint_custom_pre_pass=print) for _ in range(2))
    assert one != other


def _with_constant(value: float) -> str:
    constant = torch.tensor([value, 1.0])
    graph = make_fx(lambda x: [x + constant])(torch.ones(2))
    return digest.digest(graph, [torch.ones(2)], {})


def _with_branch(add: float) -> str:
    root = torch.nn.Module()
    root.inner = make_fx(lambda x: x + add)(torch.ones(2))
    graph = torch.fx.Graph()
    graph.output([graph.call_module("inner", (graph.placeholder("x"),))])
    return digest.digest(GraphModule(root, graph), [torch.ones(2)], {})


def test_constants_and_graphs_inside_count() -> None:
    assert _with_constant(1.0) == _with_constant(1.0) != _with_constant(2.0)
    assert _with_constant(0.0) != _with_constant(-0.0)
    assert _with_branch(1.0) == _with_branch(1.0) != _with_branch(2.0)


def test_the_strides_that_an_operation_of_a_user_returns_count() -> None:
    strides = (2, 1)

    @torch.library.custom_op("functrain_tests::turned", mutates_args=())
    def turned(x: Tensor) -> Tensor:
        return x.clone()

    @turned.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_strided((2, 2), strides)

    def function(x: Tensor) -> list[Tensor]:
        return [turned(x) + 1]

    before = _name(function, torch.ones(2, 2))
    assert _name(function, torch.ones(2, 2)) == before
    strides = (1, 2)
    assert _name(function, torch.ones(2, 2)) != before


def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _without_mkldnn() -> Iterator[None]:
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def _settings() -> Iterator[None]:
    with torch._inductor.config.patch(epilogue_fusion=False):
        yield


@pytest.mark.parametrize("change", [_deterministic, _default_dtype, _without_mkldnn, _settings])
def test_surroundings_count(change: Callable[[], Iterator[None]]) -> None:
    given = torch.ones(3, dtype=torch.float32)
    graph = traced(lambda x: [x.sin()], [given])
    before = digest.digest(graph, [given], {})
    changed = change()
    next(changed)
    try:
        assert digest.digest(graph, [given], {}) != before
    finally:
        next(changed, None)
    assert digest.digest(graph, [given], {}) == before


# Products are torch's: no kernel of these is compiled.
def _returns_an_input(x: Tensor) -> list[Tensor]:
    return [x @ x, x]


def _returns_a_view_of_an_input(x: Tensor) -> list[Tensor]:
    return [x.view(-1)]


def _turns_an_input(x: Tensor) -> list[Tensor]:
    return [x.t_() @ x]


_CONSTANT = torch.arange(9.0).reshape(3, 3)


def _has_a_constant(x: Tensor) -> list[Tensor]:
    return [x @ _CONSTANT]


@pytest.mark.parametrize(
    "function",
    [_returns_an_input, _returns_a_view_of_an_input, _turns_an_input, _has_a_constant],
)
def test_what_autograd_adds_to_is_not_kept(function: Function, compilations: Compilations) -> None:
    given = torch.arange(9.0).reshape(3, 3)
    call = compiled_in_memory(make_fx(function)(given.clone()), [given.clone()], {}, None)
    for one, expected in zip(call(given.clone()), function(given.clone()), strict=True):
        torch.testing.assert_close(one, expected)
    assert entries() == []


def test_code_under_autocast_is_not_kept() -> None:
    graph = traced(lambda x: [x + 1], [torch.ones(2)])
    assert is_plain(graph)
    with torch.autocast("cpu"):
        assert not is_plain(graph)


_TEXT = """
class Runner:
    def __init__(self, partitions):
        self.partitions = partitions

    def call(self, args):
        arg0_1, arg1_1 = args
        args.clear()
        buf0 = empty_strided_cpu((2, ), (1, ), torch.float32)
        kernel_0(arg0_1, buf0)
        {line}
        return (buf0, )

runner = Runner(partitions=[])
"""


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [
        ("extern_kernels.mm(arg0_1, arg1_1, out=buf0)", True),
        ("torch.ops.aten.sort.default(buf0)", True),
        ("extern_kernels.bias_addmm(arg0_1, arg1_1, out=buf0)", False),
        ("torch.ops.inductor.resize_storage_bytes_(buf0, 4)", False),
        ("kernel_1(buf0)", False),
        ("run_intermediate_hooks('buf0', buf0)", False),
        ("open('x')", False),
    ],
)
def test_code_that_needs_inductor_is_not_kept(line: str, is_kept: bool) -> None:
    text = _TEXT.format(line=line)
    code = standalone(text, {"kernel_0"}, 2, 1)
    assert (code is not None) is is_kept
    assert standalone(text, {"kernel_0"}, 3, 1) is None
    assert standalone(text, {"kernel_0"}, 2, 2) is None
    assert standalone(text.replace("partitions=[]", "partitions=[f]"), {"kernel_0"}, 2, 1) is None


def test_torchs_own_functions_are_those_that_inductor_calls() -> None:
    from torch._inductor.select_algorithm import extern_kernels

    for name, function in vars(scope_of_torch()["extern_kernels"]).items():
        assert getattr(extern_kernels, name) is function


def test_compiling_changes_no_settings(compilations: Compilations) -> None:
    before = settings_digest()
    compiled(sine, [torch.ones(8)])
    assert settings_digest() == before


def test_an_update_is_compiled_while_inductor_works(
    compilations: Compilations, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, begun = kernels.Libraries.load_async, list[tuple[int, bool]]()

    def noted(text: str, **options: Any) -> Any:
        begun.append((compilations.count, options["submit_fn"] is not None))
        return load(text, **options)

    monkeypatch.setattr(kernels.Libraries, "load_async", noted)
    with torch._inductor.config.patch(compile_threads=2):
        compiled(step, inputs())
    assert begun == [(0, True), (1, True)]


@pytest.mark.parametrize("threads", [1, 2])
def test_instructions_are_tested_with_the_settings_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    def seen() -> tuple[object, bool]:
        here = threading.current_thread() is threading.main_thread()
        return torch._inductor.config.cpp.vec_isa_ok, here

    monkeypatch.setattr(kernels, "valid_vec_isa_list", seen)
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True, "compile_threads": threads}):
        assert kernels.begin_to_test_instructions()() == (True, threads == 1)


_STEP = """
import sys, torch, functrain as ft
from torch import nn

def loss(model, x):
    return nn.functional.dropout(model(x), 0.5).square().mean()

torch.manual_seed(0)
program = ft.program(nn.Linear(3, 5), loss, ft.optim.AdamW(lr=0.1), clip_norm=1.0)
program = ft.donated(ft.compiled(program, directory=DIRECTORY))
state = program.init()
for _ in range(3):
    state, metrics = program.train_step(state, torch.ones(4, 3))
print(ft.tree.digest(state), "torch._inductor.compile_fx" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("is_ahead", [False, True])
def test_the_next_process_needs_no_compiler(tmp_path: Path, is_ahead: bool) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    code = _STEP.replace("DIRECTORY", repr(str(tmp_path)) if is_ahead else "None")
    first, second = (run("-c", code, env=environment) for _ in range(2))
    assert first.stdout.split()[1:] == ["True"], first.stderr
    assert second.stdout.split() == [first.stdout.split()[0], "False"], second.stderr
