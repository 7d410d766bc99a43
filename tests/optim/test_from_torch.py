"""Torch's own classes, and others, made pure: equal to the class itself, bit for bit."""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from typing import Any

import pytest
import torch
from optimizer_runs import draw, grads_at, run_class, run_in_place, run_pure
from torch import Tensor

from functrain.errors import ParameterMismatchError, UnsupportedError
from functrain.optim import from_torch

pytestmark = pytest.mark.row(14)

CLASSES = [
    getattr(torch.optim, name)
    for name in sorted(dir(torch.optim))
    if isinstance(getattr(torch.optim, name), type)
    and name not in ("Optimizer", "LBFGS", "SparseAdam")
]


class Third(torch.optim.Optimizer):
    """As people write them: counts in an attribute, keeps history, scales gradients in place."""

    def __init__(self, params: Any, lr: float = 0.1, decay: tuple[float, float] = (0.9, 0.5)):
        super().__init__(params, {"lr": lr, "decay": decay, "calls": 0})
        self.total = torch.zeros((), dtype=torch.float64)
        self.count = 0
        self.history: list[float] = []
        self.own_params = [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        for group in self.param_groups:
            group["calls"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.grad.mul_(group["decay"][self.count % 2])
                self.total += p.grad.double().sum()
                state = self.state[p]
                state.setdefault("half", torch.zeros_like(p, dtype=torch.bfloat16))
                state["half"] += p.grad.bfloat16()
                state["seen"] = state.get("seen", 0) + 1
                self.history = [*self.history[-2:], float(self.total)]
                scale = 1 + sum(self.history) / (10 * state["seen"])
                p.data = p.data - group["lr"] * scale * state["half"].float()


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9, "dampening": 0.1}, {"fused": True}],
    "AdamW": [{}, {"amsgrad": True}, {"fused": True}, {"foreach": True}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "Rprop": [{}, {"etas": (0.4, 1.3)}],
    "ASGD": [{}, {"t0": 2, "lambd": 0.1}],
}
MATRIX = [(cls, options) for cls in CLASSES for options in OPTIONS.get(cls.__name__, [{}])]


@pytest.mark.parametrize(("cls", "options"), [*MATRIX, (Third, {}), (Third, {"decay": (0.3, 1.0)})])
@pytest.mark.parametrize("run", [run_pure, run_in_place])
def test_equals_the_class_itself(run: Any, cls: Any, options: dict[str, Any]) -> None:
    found = run(from_torch(cls, lr=0.02, **options), 30)
    expected = run_class(cls, options, 30)
    for path in expected:
        assert torch.equal(found[path], expected[path]), path


def test_every_class_of_torch_is_tested() -> None:
    assert len(CLASSES) >= 13


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
@pytest.mark.parametrize("run", [run_pure, run_in_place])
def test_schedulefree_evaluates_with_its_averages(run: Any, name: str) -> None:
    cls = getattr(pytest.importorskip("schedulefree"), name)
    found = run(from_torch(cls, lr=0.02), 30)
    expected = run_class(cls, {}, 30)
    for path in expected:
        assert torch.equal(found[path], expected[path]), path


class Averaging(torch.optim.SGD):
    """Evaluates with the mean of the last two weights; a small stand-in for ScheduleFree."""

    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(params, lr=lr)
        self.param_groups[0]["mode"] = "none"

    @torch.no_grad()
    def _swap(self, mode: str) -> None:
        group = self.param_groups[0]
        if group["mode"] not in ("none", mode):
            for p in group["params"]:
                if "last" in self.state[p]:
                    self.state[p]["last"], p.data = p.data, self.state[p]["last"]
        group["mode"] = mode

    def train(self) -> None:
        self._swap("train")

    def eval(self) -> None:
        self._swap("eval")

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert self.param_groups[0]["mode"] == "train"
        for p in self.param_groups[0]["params"]:
            self.state[p]["last"] = p.detach().clone()
        super().step()


@pytest.mark.parametrize("run", [run_pure, run_in_place])
def test_modes_of_a_class_are_kept(run: Any) -> None:
    found, expected = run(from_torch(Averaging), 5), run_class(Averaging, {}, 5)
    assert all(torch.equal(found[path], expected[path]) for path in expected)


def test_eval_params_leave_state_and_params_as_they_were() -> None:
    optimizer, params = from_torch(Averaging), draw(0)
    params, state = optimizer.update(draw(1), optimizer.init(params), params, 0.1)
    before = copy.deepcopy((params, state))
    weights = optimizer.eval_params(state, params)
    assert str(before) == str((params, state))
    assert torch.equal(weights["a.weight"], draw(0)["a.weight"])
    assert not torch.equal(params["a.weight"], weights["a.weight"])


@pytest.mark.row(1)
@pytest.mark.parametrize("cls", [*CLASSES, Third])
def test_update_is_pure(cls: Any) -> None:
    optimizer, params, grads = from_torch(cls), draw(0), draw(1)
    given = copy.deepcopy(params)
    state = optimizer.init(params)
    params, state = optimizer.update(grads, state, params, 0.1)
    before, rng = copy.deepcopy((grads, state, params)), torch.get_rng_state()
    after, after_state = optimizer.update(grads, state, params, 0.1)
    assert_same((grads, state, params), before)
    assert torch.equal(torch.get_rng_state(), rng)
    assert_same(draw(0), given)
    assert all(not param.requires_grad for param in after.values())
    addresses = {tensor.data_ptr() for tensor in tensors((grads, state, params))}
    assert not any(tensor.data_ptr() in addresses for tensor in tensors((after, after_state)))


def tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree
    nested = [item for item in items if isinstance(item, dict | list | tuple | Tensor)]
    return [tensor for item in nested for tensor in tensors(item)]


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    if isinstance(left, Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            assert_same(left[name], right[name])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def test_state_keeps_types_and_dtypes() -> None:
    optimizer, params = from_torch(Third, decay=(0.5, 0.25)), draw(0)
    assert optimizer.lazy_state
    assert optimizer.init(params) == {
        "state": {},
        "shared": {},
        "group": {"decay": (0.5, 0.25), "calls": 0},
        "attributes": {
            "made by": {"class": "Third", "group": {"decay": (0.5, 0.25), "calls": 0}},
        },
    }
    _, state = optimizer.update(draw(1), optimizer.init(params), params, 0.1)
    assert state["group"] == {"decay": (0.5, 0.25), "calls": 1}
    assert state["state"]["a.weight"]["half"].dtype == torch.bfloat16
    assert state["state"]["a.weight"]["seen"] == 1
    assert sorted(state["attributes"]) == ["count", "history", "made by", "total"]
    assert state["attributes"]["total"].dtype == torch.float64


CHANGED = [
    (torch.optim.AdamW, {"weight_decay": 0.0}, {"weight_decay": 0.9}),
    (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}),
    (Third, {"decay": (0.5, 0.25)}, {"decay": (0.9, 0.1)}),
]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("cls", "before", "after"), CHANGED)
def test_changed_options_count_from_then_on(
    cls: Any, before: Any, after: Any, earlier: bool
) -> None:
    """Also those of a state from before the class's name was kept in it."""
    old, new, params = from_torch(cls, **before), from_torch(cls, **after), draw(0)
    wanted = {path: param.clone() for path, param in params.items()}
    built = cls(wanted.values(), lr=0.1, **before)
    state = old.init(params)
    for step in (1, 2, 3):
        built.param_groups[0].update({} if step == 1 else after)
        params, state = (old if step == 1 else new).update(draw(step), state, params, 0.1)
        for path, grad in draw(step).items():
            wanted[path].grad = grad
        built.step()
        assert all(torch.equal(params[path], wanted[path]) for path in params)
        if earlier:
            del state["attributes"]["made by"]


@pytest.mark.parametrize("other", [torch.optim.AdamW, torch.optim.Adam])
def test_a_state_of_another_class_is_refused(other: Any) -> None:
    params = draw(0)
    _, state = (made := from_torch(other)).update(draw(1), made.init(params), params, 0.1)
    with pytest.raises(ParameterMismatchError, match=f"expected NAdam, got {other.__name__}$"):
        from_torch(torch.optim.NAdam).update(draw(2), state, params, 0.1)


def test_update_in_place_keeps_the_params_tensors() -> None:
    for cls in (torch.optim.AdamW, Third):
        optimizer, params = from_torch(cls), draw(0)
        state = optimizer.init(params)
        kept = dict(params)
        optimizer.update_(draw(1), state, params, 0.1)
        assert all(params[path] is kept[path] for path in kept)
        assert all(not torch.equal(params[path], draw(0)[path]) for path in kept)


def test_a_schedule_is_never_evaluated() -> None:
    def schedule(step: int) -> float:
        raise AssertionError("the host evaluates the schedule")

    optimizer, params = from_torch(torch.optim.Adagrad, lr=schedule), draw(0)
    updated, _ = optimizer.update(draw(1), optimizer.init(params), params, 0.02)
    expected, _ = from_torch(torch.optim.Adagrad, lr=0.02).update(
        draw(1), optimizer.init(params), params, 0.02
    )
    assert torch.equal(updated["a.weight"], expected["a.weight"])


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (torch.optim.LBFGS, {}, "LBFGS.step needs a closure"),
        (torch.nn.Linear, {}, "expected a subclass of torch.optim.Optimizer"),
        ("AdamW", {}, r"cls: {_target_: functrain.config.imported, path: torch.optim.AdamW}"),
        ("own.Sign", {}, r"cls: {_target_: functrain.config.imported, path: own.Sign}"),
        (torch.optim.NAdam, {"momentum": 0.9}, "NAdam does not take these arguments.*momentum"),
    ],
)
def test_what_cannot_be_wrapped_is_refused(cls: Any, options: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        from_torch(cls, **options)


class Keyed(torch.optim.Optimizer):
    """Keeps what it knows of each parameter in dicts of its own, and one count for all."""

    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(params, {"lr": lr})
        self.by_id: dict[int, Tensor] = {}
        self.by_param: dict[str, dict[Tensor, float]] = {"means": {}}
        self.recent: deque[float] = deque([0.0], maxlen=2)
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.seen: set[int] = set()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state["calls"] = self.state.get("calls", 0) + 1  # type: ignore[index, call-overload]
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                self.by_id[id(p)] = self.by_id.get(id(p), torch.zeros_like(p)) + p.grad
                means = self.by_param["means"]
                means[p] = means.get(p, 0.0) + float(p.grad.mean())
                self.recent.append(float(p.grad.sum()))
                self.counts[str(tuple(p.shape))] += 1
                self.seen.add(self.counts["(4, 3)"])
                scale = 0.1 / self.state["calls"] + sum(self.recent) + len(self.seen)  # type: ignore[index]
                p -= scale * self.by_id[id(p)] + means[p]


@pytest.mark.parametrize("run", [run_pure, run_in_place])
def test_what_is_kept_by_parameter_in_other_places_follows_the_parameters(run: Any) -> None:
    found, expected = run(from_torch(Keyed), 5), run_class(Keyed, {}, 5)
    assert all(torch.equal(found[path], expected[path]) for path in expected)
    optimizer, params = from_torch(Keyed), draw(0)
    _, state = optimizer.update(grads_at(0), optimizer.init(params), params, 0.1)
    assert state["shared"] == {"calls": 1}
    assert list(state["attributes"]["by_id"]["values"]) == ["a.weight"]


class Reversed(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(list(params)[::-1], lr=lr)


class Split(torch.optim.SGD):
    def __init__(self, params: Any, lr: float = 0.1):
        first, *others = params
        super().__init__([{"params": [first]}, {"params": others}], lr=lr)


@pytest.mark.parametrize("cls", [Reversed, Split])
def test_a_class_that_regroups_its_parameters_is_refused(cls: Any) -> None:
    with pytest.raises(UnsupportedError, match="groups or an order of its own"):
        from_torch(cls).init(draw(0))


def test_a_refusal_of_the_class_names_the_class() -> None:
    with pytest.raises(UnsupportedError, match=r"Adam refuses .*Invalid beta parameter"):
        from_torch(torch.optim.Adam, betas=(2, 3)).init(draw(0))
    with pytest.raises(UnsupportedError, match=r"Muon refuses .*'bias'.*2D parameters"):
        from_torch(torch.optim.Muon).init({"bias": torch.zeros(3)})
