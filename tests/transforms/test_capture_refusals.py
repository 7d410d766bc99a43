"""Steps that a capture refuses by name, and how packages notice a capture."""

from __future__ import annotations

import copy
import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from compiling import mean_square
from torch import Tensor, nn
from torch.ao import quantization
from torch.ao.nn import qat as quantized

import functrain as ft
from functrain import tree
from functrain.errors import CaptureError, FallbackWarning
from functrain.transforms.graph.inputs import unlike_dense

pytestmark = pytest.mark.row(50)

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 6)


def both(model: nn.Module, loss: Any, **options: Any) -> tuple[ft.Program, ft.Program]:
    eager = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    return eager, ft.compiled(eager, backend="eager", **options)


def of_product(model: nn.Module, x: Tensor) -> Tensor:
    return (x.to_dense() @ model.weight).square().mean()  # type: ignore[operator]


def of_jagged(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x).values().square().mean()
    return out


UNLIKE: dict[str, tuple[Any, Any]] = {
    "nested": (lambda: torch.nested.nested_tensor([X[:2], X[2:]], layout=torch.jagged), of_jagged),
    "sparse_coo": (X.to_sparse, of_product),
    "sparse_csr": (X.to_sparse_csr, of_product),
    "sparse_csc": (X.to_sparse_csc, of_product),
    "_mkldnn": (X.to_mkldnn, of_product),
    "quantized": (
        lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.qint8),
        lambda model, x: model(x.dequantize()).square().mean(),
    ),
}


@pytest.mark.filterwarnings("ignore:.*beta state:UserWarning")
@pytest.mark.parametrize("kind", list(UNLIKE))
@pytest.mark.parametrize("inside", [False, True])
def test_batches_of_tensors_that_are_not_dense(kind: str, inside: bool) -> None:
    make, loss = UNLIKE[kind]

    def of_batch(model: nn.Module, given: Any) -> Tensor:
        out: Tensor = loss(model, given["x"] if inside else given)
        return out

    batch = {"x": make(), "y": X} if inside else make()
    eager, captured = both(linear(), of_batch)
    with pytest.raises(CaptureError, match=f"there is a {kind} tensor in the batch"):
        captured.train_step(captured.init(), batch)
    falling = ft.compiled(eager, backend="eager", fallback=True)
    with pytest.warns(FallbackWarning, match=f"a {kind} tensor"):
        found, _ = falling.train_step(falling.init(), batch)
    assert tree.diff(found, eager.train_step(eager.init(), batch)[0]) == []


class WithBuffer(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.linear = linear()
        self.register_buffer("table", values)

    def forward(self, x: Tensor) -> Tensor:
        values = self.table
        dense = values.dequantize() if values.is_quantized else values.to_dense()
        out: Tensor = self.linear(x) * dense
        return out


@pytest.mark.parametrize("kind", ["quantized", "sparse_coo"])
def test_states_of_tensors_that_are_not_dense(kind: str) -> None:
    values = UNLIKE[kind][0]()
    eager, captured = both(WithBuffer(values), mean_square)
    with pytest.raises(CaptureError, match=rf"state\.buffers\.table is a {kind} tensor"):
        captured.train_step(captured.init(), X)
    falling = ft.donated(ft.compiled(eager, backend="eager", fallback=True))
    with pytest.warns(FallbackWarning, match=r"state\.buffers\.table"):
        found, _ = falling.train_step(falling.init(), X)
    expected, _ = eager.train_step(eager.init(), X)
    torch.testing.assert_close(found.params, expected.params)


def test_tensors_that_are_dense() -> None:
    class Own(Tensor):
        pass

    for tensor in (X, X.T, X[:, ::2], nn.Parameter(X), X.as_subclass(Own), X[0, 0]):
        assert unlike_dense(tensor) is None


@pytest.mark.parametrize("accumulate", [1, 2])
def test_packages_see_that_a_step_is_captured(accumulate: int) -> None:
    seen = []

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        if not torch.compiler.is_compiling():
            assert x.abs().sum().item() > 0
        return mean_square(model, x)

    eager = ft.program(linear(), loss, ft.optim.SGD(lr=0.1), accumulate=accumulate)
    captured = ft.compiled(eager, backend="eager")
    found, _ = captured.train_step(captured.init(), X)
    assert set(seen) == {True}
    assert not torch.compiler.is_compiling()
    expected, _ = eager.train_step(eager.init(), X)
    assert seen[-1] is False
    torch.testing.assert_close(found.params, expected.params)


def test_the_flag_is_put_back_after_an_error() -> None:
    _, captured = both(linear(), lambda model, x: model(x).sum() * x.sum().item())
    with pytest.raises(CaptureError):
        captured.train_step(captured.init(), X)
    assert not torch.compiler.is_compiling()


def test_the_line_in_an_installed_package_is_named_with_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"
    packages.mkdir()
    code = (
        "import contextlib, torch\n"
        "@torch.no_grad()\n"
        "def inner(x):\n"
        "    return x.sum().item()  # in the package\n"
        "def outer(x):\n"
        "    with contextlib.nullcontext():\n"
        "        return inner(x)\n"
    )
    (packages / "installed.py").write_text(code)
    spec = importlib.util.spec_from_file_location("installed", packages / "installed.py")
    assert spec is not None
    assert spec.loader is not None
    installed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installed)
    monkeypatch.setattr("functrain.transforms.graph.capture._PACKAGES", (str(packages),))
    monkeypatch.setattr(
        "functrain.transforms.graph.capture._LIBRARIES",
        (sysconfig.get_paths()["stdlib"], str(packages)),
    )

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return model(x).sum() * installed.outer(x)  # in the loss

    _, captured = both(linear(), loss)
    with pytest.raises(CaptureError) as caught:
        captured.train_step(captured.init(), X)
    assert "# in the loss" in str(caught.value.where)
    assert str(caught.value.inside).startswith(f"{packages / 'installed.py'}:4, in inner")
    assert "# in the loss" in str(caught.value)
    assert "# in the package" in str(caught.value)


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.parametrize("name", ["Mixtral", "Qwen2Moe", "DeepseekV3", "GptOss", "Jamba"])
def test_mixtures_of_experts_of_transformers(name: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    config = {
        "vocab_size": 32,
        "hidden_size": 32,
        "intermediate_size": 32,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "num_local_experts": 4,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "use_cache": False,
        "pad_token_id": 0,
        **OWN[name],
    }
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**config)
    )
    tokens = torch.arange(2 * 12).reshape(2, 12) % 31 + 1
    batch = {"input_ids": tokens, "labels": tokens}
    eager, captured = both(model, lambda model, batch: model(**batch).loss)
    expected, metrics = eager.train_step(eager.init(), batch)
    found, found_metrics = captured.train_step(captured.init(), batch)
    torch.testing.assert_close(found_metrics["loss"], metrics["loss"])
    torch.testing.assert_close(found.params, expected.params, rtol=1e-4, atol=1e-5)


OWN: dict[str, dict[str, Any]] = {
    "Mixtral": {},
    "Qwen2Moe": {"decoder_sparse_step": 1},
    "DeepseekV3": {
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    },
    "GptOss": {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "Jamba": {
        "use_mamba_kernels": False,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "mamba_d_state": 4,
        "mamba_dt_rank": 4,
    },
}


class Observer(nn.Module):
    """Learns the shape of its buffer at the first forward, as observers of quantization do."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.linear, self.in_place = nn.Linear(6, 6), in_place
        self.register_buffer("most", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        found = x.detach().abs().amax(0)
        if self.most.numel() == 0:
            self.most = self.most.resize_(6).copy_(found) if self.in_place else found
        self.most = torch.maximum(self.most, found)
        return self.linear(x)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_buffer_that_grows_is_named_with_the_remedy(in_place: bool, accumulate: int) -> None:
    optimizer = ft.optim.SGD(0.1)
    eager = ft.program(lambda: Observer(in_place), mean_square, optimizer, accumulate=accumulate)
    compiled = ft.compiled(eager, backend="eager")
    with pytest.raises(CaptureError, match=r"most.* \[0\].*\[6\].* needs them alike"):
        compiled.train_step(compiled.init(), X)
    state, _ = eager.train_step(eager.init(), X)
    found, _ = compiled.train_step(state, 2 * X)
    expected, _ = eager.train_step(state, 2 * X)
    torch.testing.assert_close(found.buffers["most"], expected.buffers["most"])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fused_observer_by_channel_is_refused_with_the_remedy(accumulate: int) -> None:
    linear = nn.Linear(6, 6)
    linear.qconfig = quantization.get_default_qat_qconfig("x86")

    def loss(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch).square().mean()

    def make() -> nn.Module:
        return copy.deepcopy(quantized.Linear.from_float(linear))

    eager = ft.program(make, loss, ft.optim.SGD(0.1), accumulate=accumulate)
    compiled = ft.compiled(eager, backend="eager")
    with pytest.raises(CaptureError, match=r"first step with the eager program"):
        compiled.train_step(compiled.init(), X)
    state, _ = eager.train_step(eager.init(), X)
    found, _ = compiled.train_step(state, 2 * X)
    expected, _ = eager.train_step(state, 2 * X)
    torch.testing.assert_close(found.buffers, expected.buffers)
    torch.testing.assert_close(found.params, expected.params)
