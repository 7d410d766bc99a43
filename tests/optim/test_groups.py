"""Groups: who has which parameter, and that each member updates its own only."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from functrain.errors import ConfigurationError
from functrain.optim import SGD, AdamW, Frozen, Groups, RAdam, from_torch, groups

pytestmark = pytest.mark.row(7)


def draw(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        "embed.weight": torch.randn(5, 4),
        "body.weight": torch.randn(4, 4),
        "body.bias": torch.randn(4),
        "norm.weight": torch.randn(4),
        "head.weight": torch.randn(2, 4),
    }


def three() -> Groups:
    return groups(
        [
            (["*.bias", "norm.*"], AdamW(lr=0.1, weight_decay=0.0)),
            ("embed.*", Frozen()),
            (lambda path, tensor: tensor.shape[0] == 2, SGD(lr=0.1)),
            ("*", AdamW(lr=0.1, weight_decay=0.5)),
        ]
    )


LR = {"0": 0.1, "2": 0.02, "3": 0.03}


def test_first_match_wins() -> None:
    expected = {
        "embed.weight": "1",
        "body.weight": "3",
        "body.bias": "0",
        "norm.weight": "0",
        "head.weight": "2",
    }
    assert three().assign(draw(0)) == expected
    assert three().bind(draw(0)).assignment == expected


def test_members_and_learning_rates_by_name() -> None:
    optimizer = three()
    assert [name for name, _ in optimizer.members] == ["0", "1", "2", "3"]
    assert isinstance(dict(optimizer.members)["1"], Frozen)
    assert optimizer.lr == {"0": 0.1, "2": 0.1, "3": 0.1}
    assert list(optimizer.init(draw(0))) == ["0", "2", "3"]


@pytest.mark.parametrize("bound", [False, True])
def test_equals_torch_param_groups(bound: bool) -> None:
    params = draw(0)
    trained = {path: torch.nn.Parameter(param.clone()) for path, param in params.items()}
    fused = {"fused": True}
    no_decay = [trained["body.bias"], trained["norm.weight"]]
    theirs = [
        torch.optim.AdamW(no_decay, lr=0.1, weight_decay=0.0, **fused),
        torch.optim.SGD([trained["head.weight"]], lr=0.02, **fused),
        torch.optim.AdamW([trained["body.weight"]], lr=0.03, weight_decay=0.5, **fused),
    ]
    optimizer = three().bind(params) if bound else three()
    pure, state = params, optimizer.init(params)
    owned, owned_state = copy.deepcopy(params), optimizer.init(params)
    for seed in range(1, 21):
        grads = draw(seed)
        for path, param in trained.items():
            param.grad = grads[path].clone()
        for member in theirs:
            member.step()
        optimizer.update_(grads, owned_state, owned, LR)
        pure, state = optimizer.update(grads, state, pure, LR)
    for path in params:
        assert torch.equal(owned[path], trained[path].detach()), path
        torch.testing.assert_close(pure[path], owned[path], rtol=1e-5, atol=1e-6)
    assert torch.equal(owned["embed.weight"], params["embed.weight"])


@pytest.mark.parametrize("bound", [False, True])
def test_frozen_parameters_may_be_left_out(bound: bool) -> None:
    params = draw(0)
    optimizer = three().bind(params) if bound else three()
    trained = {path: params[path] for path in optimizer.trained(params)}
    assert list(trained) == ["body.weight", "body.bias", "norm.weight", "head.weight"]
    state = optimizer.init(trained)
    grads = {path: torch.ones_like(param) for path, param in trained.items()}
    updated, _ = optimizer.update(grads, state, trained, LR)
    assert list(updated) == list(trained)


def test_trained_paths_of_other_optimizers() -> None:
    params = draw(0)
    assert SGD().trained(params) == list(params)
    assert Frozen().trained(params) == []
    inner = groups([("body.*", Frozen()), ("*", SGD())])
    outer = groups([("*.weight", inner), ("*", SGD())])
    assert outer.trained(params) == ["embed.weight", "body.bias", "norm.weight", "head.weight"]


def test_groups_within_groups() -> None:
    params = draw(0)
    inner = groups([("body.*", SGD(lr=1.0)), ("*", AdamW(lr=0.5))])
    outer = groups([("*.weight", inner), ("*", SGD(lr=0.25))])
    assert outer.lr == {"0": {"0": 1.0, "1": 0.5}, "1": 0.25}
    updated, _ = outer.update(params, outer.init(params), params, outer.lr)
    assert torch.equal(updated["body.weight"], torch.zeros(4, 4))
    assert torch.equal(updated["body.bias"], 0.75 * params["body.bias"])


def test_a_parameter_in_no_group_is_named() -> None:
    optimizer = groups([("body.*", SGD()), ("head.wieght", SGD()), ("embed.*", SGD())])
    params = draw(0)
    del params["norm.weight"]
    with pytest.raises(ConfigurationError, match=r"'head.weight'.*mean 'head.wieght'"):
        optimizer.init({path: params[path] for path in params} | {"head.wieght": torch.ones(1)})
    with pytest.raises(ConfigurationError, match=r"'norm.weight' of shape \(4,\)"):
        groups([("[beh]*", SGD())]).init(draw(0))


def test_a_pattern_without_parameter_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"group 0: pattern 'body.bais'.*'body.bias'"):
        groups([(["norm.*", "body.bais"], SGD()), ("*", AdamW())]).init(draw(0))
    with pytest.raises(ConfigurationError, match=r"group 0: pattern 'x.\*'"):
        groups([("x.*", Frozen()), ("*", AdamW())]).trained(draw(0))
    with pytest.raises(ConfigurationError, match=r"group 0: pattern <function"):
        groups([(lambda path, tensor: False, SGD()), ("*", AdamW())]).assign(draw(0))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "at least one"),
        ([("*", AdamW)], "entry 0 must have an optimizer"),
        ([("*", 0.1)], "entry 0 must have an optimizer"),
        ([("*", SGD(), 0.1)], "entry 0: expected"),
        ([([], SGD())], "pattern 0: expected a glob"),
        ([(3, SGD())], "pattern 0: expected a glob"),
        ([(["a", 3], SGD())], "pattern 0: expected a glob"),
    ],
)
def test_bad_members_are_refused(members: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        groups(members)


def test_lazy_state_and_eval_params_come_from_the_members() -> None:
    params = draw(0)
    optimizer = groups([("*.bias", from_torch(torch.optim.NAdam)), ("*", RAdam())])
    assert optimizer.lazy_state
    assert not three().lazy_state
    weights = optimizer.eval_params(optimizer.init(params), params)
    assert all(weights[path] is params[path] for path in params)


@pytest.mark.row(50)
def test_bound_groups_compile_as_one_graph() -> None:
    params = draw(0)
    inner = groups([(lambda path, tensor: tensor.ndim == 1, AdamW()), ("*", SGD(momentum=0.9))])
    optimizer = groups([(["*.bias", "body.*"], inner), ("*", SGD())]).bind(params)
    lr = {"0": {"0": torch.tensor(0.1), "1": torch.tensor(0.3)}, "1": torch.tensor(0.2)}
    compiled = torch.compile(optimizer.update, fullgraph=True, backend="aot_eager")
    found, _ = compiled(params, optimizer.init(params), params, lr)
    expected, _ = optimizer.update(params, optimizer.init(params), params, lr)
    for path in params:
        torch.testing.assert_close(found[path], expected[path])


def test_a_group_to_which_earlier_ones_leave_nothing_is_an_error() -> None:
    params = {"head.weight": torch.zeros(2), "body.weight": torch.zeros(2)}
    for second in ("head.*", "*"):
        with pytest.raises(ConfigurationError, match=r"group 1: .*Put it before those"):
            groups([("*", SGD()), (second, AdamW())]).bind(params)
    assert groups([("head.*", AdamW()), ("*", SGD())]).assign(params)["body.weight"] == "1"


def test_the_rest_may_be_nothing() -> None:
    params = {"head.weight": torch.zeros(2), "body.weight": torch.zeros(2)}
    members = [("head.*", SGD()), ("body.*", AdamW()), ("*", SGD())]
    assert groups(members).assign(params) == {"head.weight": "0", "body.weight": "1"}
