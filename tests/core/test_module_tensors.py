"""Models inside of wrappers, and modules that cannot be models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.core.model import FunctionalModule, functionalize
from functrain.core.module_tensors import shown_layers
from functrain.errors import ModelError

X = torch.linspace(-1, 1, 24).reshape(4, 6)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


class Outer(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


class Counting:
    """A backend that counts how often what it compiled is run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        def run(*given: Any) -> Any:
            self.runs += 1
            return graph(*given)

        return run

    def __deepcopy__(self, memo: Any) -> Counting:
        return self


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def program(model: Any) -> ft.Program:
    return ft.program(model, loss, ft.optim.AdamW(lr=0.1), ema=0.9)


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


WRAPPED: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "compiled": (lambda: compiled(network()), network),
    "a part compiled": (lambda: Outer(compiled(network())), lambda: Outer(network())),
    "twice": (lambda: compiled(Outer(compiled(network()))), lambda: Outer(network())),
    "from a factory": (lambda: lambda: compiled(network()), lambda: network),
    "in place": (lambda: compiled_in_place(network()), network),
    "data parallel": (lambda: nn.DataParallel(network()), network),
}
EACH = pytest.mark.parametrize(("wrapped", "plain"), list(WRAPPED.values()), ids=list(WRAPPED))


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


@EACH
def test_paths_and_steps_are_those_of_the_module_inside(wrapped: Any, plain: Any) -> None:
    one, other = program(wrapped()), program(plain())
    first, second = one.init(), other.init()
    assert list(first.params) == list(second.params)
    assert list(first.buffers) == list(second.buffers)
    for _ in range(3):
        first, _ = one.train_step(first, X)
        second, _ = other.train_step(second, X)
    assert tree.diff(first, second) == []
    assert tree.diff(one.eval_step(first, X), other.eval_step(second, X)) == []


# Such a run says that it goes on with another forward, which may round differently.
@pytest.mark.filterwarnings("ignore:the run is continued with something changed")
@EACH
def test_checkpoints_of_one_are_those_of_the_other(
    wrapped: Any, plain: Any, tmp_path: Path
) -> None:
    for first, second in ((wrapped, plain), (plain, wrapped)):
        directory = tmp_path / first.__name__ / str(first is wrapped)
        ft.fit(program(first()), [X] * 3, until="1 epoch", directory=directory)
        run = ft.fit(program(second()), [X] * 3, until="2 epochs", directory=directory)
        whole = ft.fit(program(plain()), [X] * 3, until="2 epochs")
        assert tree.diff(run.state, whole.state) == []


@EACH
def test_a_wrapped_program_takes_the_state_dict_of_either(wrapped: Any, plain: Any) -> None:
    for made, of in ((wrapped, plain), (wrapped, wrapped)):
        source = of()
        values = (source if isinstance(source, nn.Module) else source()).state_dict()
        values = {name: tensor + 1 for name, tensor in values.items()}
        state = program(made()).init(params=values)
        found = {**state.params, **state.buffers}
        assert len(found) == len(values)
        torch.testing.assert_close(list(found.values()), list(map(values_of(values), found)))


def values_of(values: dict[str, Tensor]) -> Callable[[str], Tensor]:
    short = {
        name.replace("_orig_mod.", "").removeprefix("module."): tensor
        for name, tensor in values.items()
    }
    return short.__getitem__


def test_the_compiled_forward_is_run() -> None:
    backend = Counting()
    made = program(torch.compile(network(), backend=backend))
    state, _ = made.train_step(made.init(), X)
    made.eval_step(state, X)
    assert backend.runs == 2


def test_names_of_tied_weights_and_hooks_in_a_wrapper() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.b.weight = self.a.weight
            self.a.bias.register_hook(lambda grad: grad * 0)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.a(x))
            return out

    found: FunctionalModule = functionalize(compiled(Tied()))
    assert found.aliases == {"b.weight": "a.weight"}
    assert list(found.hooks) == ["a.bias"]
    assert found.requires_grad == {"a.weight", "a.bias", "b.bias"}


def test_a_run_of_an_earlier_version_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_before(module: nn.Module, paths: list[str]) -> dict[str, str]:
        return {path: path for path in paths}

    with monkeypatch.context() as patched:
        for place in ("core.model", "training.resume", "training.run_record"):
            patched.setattr(f"functrain.{place}.plain_paths", of_before)
        old = program(compiled(network()))
        assert "_orig_mod.0.weight" in old.init().params
        ft.fit(old, [X] * 3, until="1 epoch", directory=tmp_path)
    run = ft.fit(program(compiled(network())), [X] * 3, until="2 epochs", directory=tmp_path)
    whole = ft.fit(program(network()), [X] * 3, until="2 epochs")
    assert tree.diff(run.state, whole.state) == []


def test_layers_have_the_same_paths_too() -> None:
    found = shown_layers(network())
    assert found["0"] == "Linear(in_features=6, out_features=4, bias=True)"
    assert shown_layers(compiled(network())) == found
    assert shown_layers(compiled(nn.GELU("tanh"))) == {"": "GELU(approximate='tanh')"}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(network()),
        lambda: torch.jit.trace(network(), X),
        lambda: Outer(torch.jit.script(network())),
        lambda: lambda: torch.jit.script(network()),
    ],
    ids=["script", "trace", "a part", "from a factory"],
)
def test_modules_of_torch_jit_are_refused(make: Any) -> None:
    with pytest.raises(ModelError, match=r"torch\.jit module.*Give functrain the nn\.Module"):
        program(make())


def hooked() -> nn.Module:
    module = network()
    weight = cast(nn.Linear, module[0]).weight
    weight.register_post_accumulate_grad_hook(lambda p: cast(Tensor, p.grad).zero_())
    return module


@pytest.mark.parametrize("given", [hooked, hooked()], ids=["factory", "module"])
def test_hooks_that_wait_for_grad_are_refused(given: Any) -> None:
    with pytest.raises(ModelError, match=r"'0\.weight' has a hook.*use parameter\.register_hook"):
        program(given)


def test_distributed_data_parallel_is_refused() -> None:
    # Gloo joins its threads when the last reference to the group goes, here in a collection that
    # holds the GIL, for which such a thread may wait: once, this test hung for ever.
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", store=fake.FakeStore(), rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(network())
        with pytest.raises(ModelError, match=r"Give functrain the module inside, model\.module"):
            program(model)
    finally:
        torch.distributed.destroy_process_group()


def pair(one: Tensor, other: Tensor) -> nn.Module:
    """A module with two tensors, parameters unless they require no gradient."""
    module = nn.Module()
    for name, tensor in {"one": one, "other": other}.items():
        if tensor.is_floating_point():
            setattr(module, name, nn.Parameter(tensor))
        else:
            module.register_buffer(name, tensor)
    return module


FLAT, COUNTS = torch.zeros(12), torch.zeros(12, dtype=torch.int64)
OVERLAPPING = {
    "the same values": (FLAT, FLAT.detach()),
    "a matrix and its transpose": (FLAT.view(3, 4), FLAT.view(3, 4).T),
    "a part": (FLAT, FLAT[3:4]),
    "slices that meet": (FLAT[:7], FLAT[6:]),
    "a row and a column": (FLAT.view(3, 4)[1], FLAT.view(3, 4)[:, 2]),
    "another dtype": (FLAT[2:4], FLAT[:6].view(torch.int32)),
    "buffers": (COUNTS, COUNTS[1:]),
}
APART = {
    "halves": FLAT.chunk(2),
    "interleaved": (FLAT[::2], FLAT[1::2]),
    "columns": (FLAT.view(3, 4)[:, :2], FLAT.view(3, 4)[:, 2:]),
    "expanded": (FLAT[:1].expand(5), FLAT[1:2].expand(5)),
    "empty": (FLAT, FLAT[:0]),
    "without memory": (FLAT.to("meta"), FLAT.to("meta")),
    "sparse": (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
}


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("names", list(OVERLAPPING))
def test_tensors_that_share_memory_and_are_not_one_are_refused(names: str, made: bool) -> None:
    module = pair(*OVERLAPPING[names])
    with pytest.raises(ModelError, match="'one' and 'other' of the model share memory"):
        functionalize((lambda: module) if made else module)


@pytest.mark.parametrize("name", list(APART))
def test_tensors_that_share_a_storage_only_are_not_refused(name: str) -> None:
    assert functionalize(lambda: pair(*APART[name])).params.keys() == {"one", "other"}


def test_loading_by_assignment_unties_weights_and_is_refused() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    cast(Any, module[1]).weight = module[0].weight
    module.load_state_dict(module.state_dict(), assign=True)
    with pytest.raises(ModelError, match=r"'0.weight' and '1.weight' .*b.weight = a.weight"):
        program(module)
    cast(Any, module[1]).weight = module[0].weight
    program(module)


@pytest.mark.parametrize("factory", [False, True])
def test_exported_modules_are_refused(factory: bool) -> None:
    exported = torch.export.export(nn.Sequential(nn.Linear(6, 1), nn.Dropout()), (X,)).module()
    with pytest.raises(ModelError, match=r"torch\.export.* Give the module that was exported"):
        ft.program((lambda: exported) if factory else exported, loss, ft.optim.SGD(0.1))


class Keeps(nn.Module):
    """Keeps something made of its own tensors in an attribute."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("table", torch.ones(2, 4))
        self.kept = make(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.linear.weight.detach(),
        lambda m: m.linear.weight.data,
        lambda m: [{"rows": m.linear.weight[:2]}],
        lambda m: m.table[0],
    ],
)
def test_attributes_that_are_views_are_refused(make: Any) -> None:
    for model in (Keeps(make), lambda: Keeps(make)):
        with pytest.raises(ModelError, match=r"(kept|rows)' of the model is a view of"):
            ft.program(model, lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))


@pytest.mark.parametrize(
    "make",
    [
        lambda m: m.linear.weight.detach().clone(),
        lambda m: m.linear.weight,
        lambda m: nn.utils.spectral_norm(nn.Linear(4, 4)),
        lambda m: nn.utils.weight_norm(nn.Linear(4, 4)),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_attributes_that_no_step_leaves_behind_are_allowed(make: Any) -> None:
    ft.program(Keeps(make), lambda m, x: m(x).mean(), ft.optim.SGD(lr=0.1))
