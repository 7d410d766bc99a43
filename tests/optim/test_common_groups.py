"""Groups by convention: decay masks and learning rates that fall towards the input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain.errors import ConfigurationError
from functrain.optim import (
    SGD,
    AdamW,
    ClipByBlockRms,
    Frozen,
    Groups,
    Muon,
    Optimizer,
    from_torch,
    groups,
    is_bias_or_norm,
    is_matrix,
    layerwise_lr_decay,
    no_decay_on_bias_and_norm,
)
from functrain.schedules import Cosine

pytestmark = pytest.mark.row(7)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 8), nn.LayerNorm(8)
    )


def params() -> dict[str, Tensor]:
    return dict(model().named_parameters())


def loss(module: nn.Module, batch: Tensor) -> Tensor:
    return module(batch).square().mean()


def decayed(optimizer: Optimizer) -> set[str]:
    """The parameters that move when every gradient is zero."""
    before = {path: param.detach() for path, param in params().items()}
    bound = optimizer.bind(before)
    zeros = {path: torch.zeros_like(param) for path, param in before.items()}
    after, _ = bound.update(zeros, bound.init(before), before, bound.lr)
    return {path for path in before if not torch.equal(before[path], after[path])}


@pytest.mark.parametrize(
    "optimizer",
    [
        AdamW(0.1, weight_decay=0.5),
        SGD(0.1, weight_decay=0.5),
        from_torch(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
        groups([("0.*", AdamW(0.1, weight_decay=0.5)), ("*", SGD(0.1, weight_decay=0.5))]),
    ],
)
def test_only_matrices_and_kernels_decay(optimizer: Optimizer) -> None:
    assert decayed(optimizer) > {"0.weight", "3.weight"}
    assert decayed(no_decay_on_bias_and_norm(optimizer)) == {"0.weight", "3.weight"}


def test_the_pattern_may_be_given() -> None:
    adamw = AdamW(0.1, weight_decay=0.5)
    found = decayed(no_decay_on_bias_and_norm(adamw, "0.*"))
    assert found == decayed(adamw) - {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("a.weight", (3, 3), False),
        ("a.bias", (3,), True),
        ("norm.weight", (3,), True),
        ("attention.bias_k", (1, 1, 3), True),
        ("logit_scale", (), True),
        ("debiased.weight", (3, 3), False),
    ],
)
def test_what_is_a_bias_or_norm(path: str, shape: tuple[int, ...], expected: bool) -> None:
    assert is_bias_or_norm(path, torch.zeros(shape)) == expected


def test_a_model_without_biases_trains() -> None:
    optimizer = no_decay_on_bias_and_norm(AdamW(0.1))
    program = ft.program(nn.Linear(3, 2, bias=False), loss, optimizer)
    state, metrics = program.train_step(program.init(), torch.ones(2, 3))
    assert list(state.optimizer) == ["decay"]
    assert metrics["lr"] == 0.1


def test_it_trains_as_groups_written_by_hand() -> None:
    by_hand = groups(
        [
            (is_bias_or_norm, AdamW(Cosine(0.1, steps=9), weight_decay=0.0)),
            ("*", AdamW(Cosine(0.1, steps=9), weight_decay=0.2)),
        ]
    )
    by_convention = no_decay_on_bias_and_norm(AdamW(Cosine(0.1, steps=9), weight_decay=0.2))
    results = []
    for optimizer in (by_hand, by_convention):
        program = ft.program(model(), loss, optimizer, clip_norm=1.0)
        state = program.init()
        for seed in range(4):
            torch.manual_seed(seed)
            state, _ = program.train_step(state, torch.randn(5, 1, 5, 5))
        results.append(state.params)
    assert all(torch.equal(results[0][path], results[1][path]) for path in results[0])


def test_frozen_groups_stay_frozen() -> None:
    optimizer = no_decay_on_bias_and_norm(groups([("0.*", Frozen()), ("*", AdamW(0.1))]))
    assert "0.weight" not in optimizer.trained(params())
    assert "3.weight" in optimizer.trained(params())


def test_a_misspelt_pattern_is_still_an_error() -> None:
    optimizer = no_decay_on_bias_and_norm(groups([("haed.*", SGD(0.1)), ("*", AdamW(0.1))]))
    with pytest.raises(ConfigurationError, match=r"haed\.\*"):
        optimizer.bind(params())


def test_an_optimizer_without_decay_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"Rprop.* has no weight_decay"):
        no_decay_on_bias_and_norm(from_torch(torch.optim.Rprop))


LAYERS = ["0.*", "1.*", "3.*", "4.*"]


def test_layers_learn_more_slowly_towards_the_input() -> None:
    optimizer = layerwise_lr_decay(SGD(0.8), 0.5, LAYERS)
    assert optimizer.lr == {"0": 0.1, "1": 0.2, "2": 0.4, "3": 0.8}
    before = {path: param.detach() for path, param in params().items()}
    ones = {path: torch.ones_like(param) for path, param in before.items()}
    bound = optimizer.bind(before)
    after, _ = bound.update(ones, bound.init(before), before, bound.lr)
    for path, lr in (("0.weight", 0.1), ("1.bias", 0.2), ("3.weight", 0.4), ("4.weight", 0.8)):
        torch.testing.assert_close(before[path] - after[path], lr * ones[path])


def test_layers_learn_as_param_groups_of_torch() -> None:
    optimizer = layerwise_lr_decay(AdamW(1e-2, weight_decay=0.1), 0.5, LAYERS)
    program = ft.program(model(), loss, optimizer)
    state, net = program.init(), model()
    rates = {"0": 1.25e-3, "1": 2.5e-3, "3": 5e-3, "4": 1e-2}
    layers = [{"params": net.get_submodule(name).parameters(), "lr": rates[name]} for name in rates]
    theirs = torch.optim.AdamW(layers, weight_decay=0.1, fused=True)
    for batch in torch.randn(20, 6, 1, 5, 5):
        state, _ = program.train_step(state, batch)
        theirs.zero_grad()
        loss(net, batch).backward()
        theirs.step()
    assert ft.tree.equal(dict(state.params), {p: x.detach() for p, x in net.named_parameters()})


def test_a_schedule_is_scaled_and_the_conventions_combine() -> None:
    inner = no_decay_on_bias_and_norm(AdamW(Cosine(0.8, steps=10), weight_decay=0.2))
    program = ft.program(model(), loss, layerwise_lr_decay(inner, 0.5, LAYERS))
    state = program.init()
    for seed in range(6):
        torch.manual_seed(seed)
        state, metrics = program.train_step(state, torch.randn(5, 1, 5, 5))
    assert float(metrics["lr.3.no_decay"]) == pytest.approx(Cosine(0.8, steps=10)(5))
    assert float(metrics["lr.0.decay"]) == pytest.approx(Cosine(0.1, steps=10)(5))
    assert float(metrics["lr.0"]) == float(metrics["lr"]) == float(metrics["lr.0.decay"])


def test_a_wrapper_stays_around_all_layers() -> None:
    optimizer = layerwise_lr_decay(ClipByBlockRms(SGD(1.0), threshold=2.0), 0.5, ["a", "b"])
    params = {"a": torch.zeros(()), "b": torch.zeros(())}
    grads = {"a": torch.tensor(4.0), "b": torch.tensor(4.0)}
    updated, _ = optimizer.update(grads, optimizer.init(params), params, optimizer.lr)
    assert updated == {"a": torch.tensor(-1.0), "b": torch.tensor(-2.0)}


def test_groups_need_not_match_in_every_layer() -> None:
    inner = groups([(is_matrix, Muon(0.02)), ("0.*", Frozen()), ("*", AdamW(0.1))])
    bound = layerwise_lr_decay(inner, 0.5, LAYERS).bind(params())
    assert {path for path in params() if path not in bound.trained(params())} == {
        "0.weight",
        "0.bias",
    }
    assert bound.lr["2"] == {"0": 0.01, "2": 0.05}  # type: ignore[index]


def test_what_is_no_optimizer_or_no_list_of_layers_is_refused() -> None:
    for function in (no_decay_on_bias_and_norm, lambda x: layerwise_lr_decay(x, 0.5, LAYERS)):
        with pytest.raises(ConfigurationError, match=r"expected an optimizer such as AdamW"):
            function(AdamW)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match="layers: expected a list"):
        layerwise_lr_decay(SGD(0.1), 0.5, "0.*")
    with pytest.raises(ConfigurationError, match="biass"):
        no_decay_on_bias_and_norm(AdamW(0.1), pattern="*.biass").bind(params())
    with pytest.raises(ConfigurationError, match="got a dict"):
        groups({"*": SGD(0.1)})  # type: ignore[arg-type]


def test_layers_must_cover_the_model_and_be_there() -> None:
    with pytest.raises(ConfigurationError, match=r"4\.weight"):
        layerwise_lr_decay(SGD(0.1), 0.5, LAYERS[:-1]).bind(params())
    with pytest.raises(ConfigurationError, match=r"haed\.\*"):
        layerwise_lr_decay(SGD(0.1), 0.5, [*LAYERS, "haed.*"]).bind(params())
    with pytest.raises(ConfigurationError, match="decay: expected a number above 0, got -1"):
        layerwise_lr_decay(SGD(0.1), -1, LAYERS)


def test_groups_within_groups_in_a_program() -> None:
    inner = groups([("3.*", SGD(0.5)), ("*", AdamW(Cosine(0.1, steps=4)))])
    program = ft.program(model(), loss, groups([("0.*", Frozen()), ("*", inner)]))
    assert isinstance(program.recipe.optimizer, Groups)
    state, metrics = program.train_step(program.init(), torch.ones(5, 1, 5, 5))
    assert (float(metrics["lr.1.0"]), float(metrics["lr.1.1"])) == (0.5, 0.1)
    assert state.counters.step == 1
