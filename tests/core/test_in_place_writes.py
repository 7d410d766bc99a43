"""Parameters and buffers that a forward writes to, in every way there is, in every kind of step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import tree
from functrain.errors import CaptureError, ModelError

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
Does = Callable[[Any], object]


class Momentum(nn.Module):
    """A query and a key encoder, and a buffer; the forward does something to one of them."""

    def __init__(self, does: Does) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.key.requires_grad_(False)
        self.register_buffer("scale", torch.full((6,), 0.5))
        self.does = does

    def forward(self, x: Tensor) -> Tensor:
        self.does(self)
        return self.query(x) - self.key(x) * self.scale


def loss(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def without_grad(does: Does) -> Does:
    return torch.no_grad()(does)


def assign(tensor: Tensor, values: Tensor) -> None:
    tensor.data = values


def quantise_for_a_while(m: Any) -> None:
    """Values that the forward puts back do not count."""
    kept = m.query.weight.data
    m.query.weight.data = (kept * 4).round() / 4
    m.scale.copy_(m.query(X).detach().mean(0))
    m.query.weight.data = kept


def of_batch_twice(m: Any) -> None:
    m.key.weight.data = m.key.weight.data * 0.9
    m.key.weight.data.mul_(0.9)


WAYS: dict[str, Does] = {
    "key.data =": lambda m: assign(m.key.weight, m.key.weight.data * 0.9 + m.query.weight.data),
    "key.data = query": lambda m: assign(m.key.weight, m.query.weight.data.clone()),
    "key.data.mul_": lambda m: m.key.weight.data.mul_(0.9).add_(m.query.weight.data),
    "key.copy_": without_grad(lambda m: m.key.weight.copy_(m.key.weight * 0.9)),
    "key.lerp_": without_grad(lambda m: m.key.weight.lerp_(m.query.weight, 0.1)),
    "key.set_": without_grad(lambda m: m.key.weight.set_(m.key.weight * 0.9)),
    "key.detach().mul_": lambda m: m.key.weight.detach().mul_(0.9),
    "a row of key": without_grad(lambda m: m.key.weight[1].zero_()),
    "foreach": without_grad(lambda m: torch._foreach_mul_(list(m.key.parameters()), 0.9)),
    "out=": without_grad(lambda m: torch.mul(m.key.weight.clone(), 0.9, out=m.key.weight)),
    "load_state_dict": lambda m: m.key.load_state_dict(
        {name: values * 0.9 for name, values in m.query.state_dict().items()}
    ),
    "key = Parameter": without_grad(
        lambda m: setattr(m.key, "weight", nn.Parameter(m.key.weight * 0.9, requires_grad=False))
    ),
    "key twice": of_batch_twice,
    "query.data =": lambda m: assign(m.query.weight, nn.functional.normalize(m.query.weight.data)),
    "query.data.mul_": lambda m: m.query.weight.data.mul_(0.9),
    "query.mul_": without_grad(lambda m: m.query.weight.mul_(0.9)),
    "query for a while": quantise_for_a_while,
    "buffer.data =": lambda m: assign(m.scale, m.scale * 0.9),
    "buffer.data.copy_": lambda m: m.scale.data.copy_(m.scale * 0.9),
    "buffer.mul_": lambda m: m.scale.mul_(0.9),
    "buffer = ": lambda m: setattr(m, "scale", m.scale * 0.9),
    "register_buffer": lambda m: m.register_buffer("scale", m.scale * 0.9),
    "buffer.set_": lambda m: m.scale.set_(m.scale * 0.9),
}
EACH_WAY = pytest.mark.parametrize("does", list(WAYS.values()), ids=list(WAYS))

KINDS: dict[str, Callable[[ft.Program], ft.Program]] = {
    "compiled, donated": lambda program: ft.donated(ft.compiled(program, backend="eager")),
    "compiled": lambda program: ft.compiled(program, backend="eager"),
    "donated": ft.donated,
    "eager": lambda program: program,
}
EACH_KIND = pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))


def program(does: Does, **options: Any) -> ft.Program:
    return ft.program(Momentum(does), loss, ft.optim.SGD(lr=0.1), **options)


def of_plain_loop(model: nn.Module, steps: int, parts: int = 1) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        for part in X.chunk(parts):
            (loss(model, part) / parts).backward()
        optimizer.step()
    return {name: values.detach() for name, values in model.state_dict().items()}


@pytest.mark.sweep("does")
@EACH_WAY
@EACH_KIND
@pytest.mark.parametrize("parts", [2, 1])
def test_what_a_forward_writes_is_in_the_next_state(does: Does, kind: Any, parts: int) -> None:
    expected = of_plain_loop(Momentum(does), 5, parts)
    made = kind(program(does, accumulate=parts))
    state = made.init()
    for _ in range(5):
        state, _ = made.train_step(state, X)
    torch.testing.assert_close({**state.params, **state.buffers}, expected)


@pytest.mark.sweep("does", "kind")
@EACH_WAY
@pytest.mark.parametrize("kind", ["eager", "compiled"])
@pytest.mark.parametrize("parts", [1, 2])
def test_the_state_before_stays_as_it_was(does: Does, kind: str, parts: int) -> None:
    made = KINDS[kind](program(does, accumulate=parts))
    state = made.init()
    for _ in range(5):
        before = ft.copy(state)
        after, _ = made.train_step(state, X)
        assert tree.diff(before, state) == []
        state = after


@EACH_KIND
def test_no_two_states_share_what_a_forward_assigned(kind: Any) -> None:
    made = kind(program(lambda m: assign(m.key.weight, m.query.weight.data)))
    state = made.init()
    for _ in range(5):
        before = state.params["query.weight"].clone()
        state, _ = made.train_step(state, X)
        assert torch.equal(state.params["key.weight"], before)


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_a_momentum_encoder_that_begins_as_the_query_encoder(kind: str) -> None:
    # Its first update changes nothing.
    def lerp(m: Any) -> None:
        m.key.weight.data.lerp_(m.query.weight.data, 0.1)

    made = KINDS[kind](program(lerp))
    state = made.init()
    same = {**state.params, "key.weight": state.params["query.weight"]}
    state = made.init(params=same)
    for _ in range(5):
        before = ft.copy(state)
        after, _ = made.train_step(state, X)
        assert tree.diff(before, state) == []
        state = after
    assert not torch.equal(state.params["key.weight"], same["key.weight"])


@EACH_KIND
def test_a_skipped_step_keeps_what_its_forward_wrote_out_of_the_state(kind: Any) -> None:
    made = kind(program(WAYS["key.data ="], nonfinite="skip"))
    state, _ = made.train_step(made.init(), X)
    before = ft.copy(state)
    state, _ = made.train_step(state, X * float("nan"))
    assert int(state.counters.skipped) == 1
    assert tree.diff(before.params, state.params) == []


@EACH_KIND
def test_frozen_parameters_that_nothing_writes_to_are_shared_between_states(kind: Any) -> None:
    made = kind(program(lambda m: None))
    state = made.init()
    frozen = state.params["key.weight"].data_ptr()
    for _ in range(3):
        state, _ = made.train_step(state, X)
    if kind is not KINDS["compiled, donated"]:  # which copies the state that it is given first
        assert state.params["key.weight"].data_ptr() == frozen


@EACH_KIND
def test_parameters_in_another_order(kind: Any) -> None:
    does = WAYS["query.data ="]
    made = kind(program(does))
    state = made.init()
    state = attrs.evolve(state, params=dict(reversed(state.params.items())))
    for _ in range(5):
        state, _ = made.train_step(state, X)
    expected = of_plain_loop(Momentum(does), 5)
    torch.testing.assert_close({**state.params, **state.buffers}, expected)


@EACH_KIND
@pytest.mark.parametrize("layer", [nn.Embedding, nn.EmbeddingBag])
def test_an_embedding_with_a_norm(kind: Any, layer: Any) -> None:
    torch.manual_seed(0)
    model = layer(5, 4, max_norm=0.1)
    tokens = torch.tensor([[0, 1], [2, 2]])
    eager = ft.program(model, loss, ft.optim.SGD(lr=0.1))
    made = kind(eager)
    state, expected = made.init(), eager.init()
    for _ in range(5):
        before = ft.copy(state)
        made.eval_step(state, tokens)
        assert tree.diff(before, state) == []
        expected, _ = eager.train_step(expected, tokens)
        state, _ = made.train_step(state, tokens)
    torch.testing.assert_close(state.params, expected.params)


@EACH_KIND
def test_another_tensor_instead_of_a_trained_parameter_is_refused(kind: Any) -> None:
    def replace(m: Any) -> None:
        m.query.weight = nn.Parameter(m.query.weight.detach() * 0.9)

    class Also(Momentum):
        def __init__(self) -> None:
            super().__init__(replace)
            self.bias = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.bias

    made = kind(ft.program(Also(), loss, ft.optim.SGD(lr=0.1)))
    with pytest.raises(ModelError, match=r"instead of the trained parameter 'query\.weight'"):
        made.train_step(made.init(), X)


@pytest.mark.parametrize("name", ["key", "scale"])
def test_what_no_graph_can_write_down_is_refused(name: str) -> None:
    def swap(m: Any) -> None:
        old = m.key.weight if name == "key" else m.scale
        torch.utils.swap_tensors(old, old.detach() * 0.9)

    made = KINDS["compiled"](program(swap))
    with pytest.raises(CaptureError, match="swap"):
        made.train_step(made.init(), X)


def test_a_second_pass_of_sam_writes_nothing() -> None:
    made = ft.sharpness_aware(program(WAYS["key.data.mul_"]), rho=0.05)
    state = made.init()
    after, _ = made.train_step(state, X)
    expected = state.params["key.weight"] * 0.9 + state.params["query.weight"]
    torch.testing.assert_close(after.params["key.weight"], expected)


def test_fit_is_the_plain_loop() -> None:
    does = WAYS["key.data ="]
    run = ft.fit(program(does), [X] * 5, until="5 steps")
    found = {**run.state.params, **run.state.buffers}
    torch.testing.assert_close(found, of_plain_loop(Momentum(does), 5))
