"""A step computes with the user's own module, and leaves it as it was."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import functrain as ft

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))


class Recorder:
    """Keeps the output of a layer for the loss."""

    out: Any = None

    def hook(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.out = out

    def __call__(self, module: nn.Module, args: Any, out: Tensor) -> None:
        self.out = out


def keep(recorder: Recorder, module: nn.Module, args: Any, out: Tensor) -> None:
    recorder.out = out


HOOKS: dict[str, Callable[[Recorder], Any]] = {
    "bound method": lambda recorder: recorder.hook,
    "object": lambda recorder: recorder,
    "partial": lambda recorder: functools.partial(keep, recorder),
    "closure": lambda recorder: lambda *given: keep(recorder, *given),
}


def sequence() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


def squared(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).square().mean()


def stepped(made: ft.Program, steps: int = 3) -> ft.TrainState:
    state = made.init()
    for _ in range(steps):
        state, _ = made.train_step(state, X)
    return state


def assert_trains_like(made: ft.Program, expected: ft.Program) -> ft.TrainState:
    state = stepped(made)
    assert ft.tree.equal(state.params, stepped(expected).params)
    return state


@pytest.mark.parametrize("looked_before", [False, True])
@pytest.mark.parametrize("wrap", [lambda made: made, ft.donated], ids=["plain", "donated"])
@pytest.mark.parametrize("kind", HOOKS)
def test_a_loss_reads_what_a_hook_keeps(kind: str, wrap: Any, looked_before: bool) -> None:
    net, recorder = sequence(), Recorder()
    net[0].register_forward_hook(HOOKS[kind](recorder))
    if looked_before:
        with torch.no_grad():
            net(X)

    def loss(model: nn.Module, x: Tensor) -> Tensor:
        return squared(model, x) + recorder.out.square().mean()

    def plain_loss(model: Any, x: Tensor) -> Tensor:
        features = model[0](x)
        return squared(model[1:], features) + features.square().mean()

    expected = ft.program(sequence(), plain_loss, ft.optim.SGD(0.1))
    made = wrap(ft.program(net, loss, ft.optim.SGD(0.1)))
    state = assert_trains_like(made, expected)
    assert ft.tree.equal(dict(made.eval_step(state, X)), dict(expected.eval_step(state, X)))
    with made.evaluating(state) as model:
        assert torch.equal(loss(model, X), expected.eval_step(state, X)["loss"])


class Shared(nn.Module):
    """A hook of the backbone writes to a dict that is an attribute too."""

    def __init__(self, **extra: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.head, self.kept = nn.Linear(8, 3), {}
        store: dict[str, Any] = self.kept
        self.backbone.register_forward_hook(lambda *given: store.update(out=given[-1]))

    def forward(self, x: Tensor) -> Tensor:
        self.backbone(x)
        out: Tensor = self.head(self.kept["out"])
        return out


@pytest.mark.parametrize("from_factory", [False, True])
def test_a_dict_that_a_hook_and_the_forward_share_is_one(from_factory: bool) -> None:
    def plain(model: Any, x: Tensor) -> Tensor:
        return squared(nn.Sequential(model.backbone, model.head), x)

    net = Shared()
    with torch.no_grad():
        net(X)
    expected = ft.program(Shared(), plain, ft.optim.SGD(0.1))
    made = ft.program(Shared if from_factory else net, squared, ft.optim.SGD(0.1))
    state = assert_trains_like(made, expected)
    if from_factory:
        with torch.no_grad(), made.module(state) as lent:
            assert squared(lent, X) == expected.eval_step(state, X)["loss"]
        found = ft.predict(made, state, ft.data.Batches(X[:8], 8, shuffle=False), join=False)
        assert found[0].shape == (8, 3)


def test_a_loss_may_use_the_module_that_it_closes_over() -> None:
    net = sequence()
    made = ft.program(net, lambda model, x: squared(net, x), ft.optim.SGD(0.1))
    assert_trains_like(made, ft.program(sequence(), squared, ft.optim.SGD(0.1)))


class TestTheModule:
    def test_has_its_tensors_modes_and_gradients_afterwards(self) -> None:
        net = sequence().eval()
        net[0].train()
        before = copy.deepcopy(net.state_dict())
        weight, modes = net[0].weight, [one.training for one in net.modules()]
        made = ft.program(net, squared, ft.optim.SGD(0.1))
        state = stepped(made)
        made.eval_step(state, X)
        with pytest.raises(RuntimeError, match="mat1"):
            made.train_step(state, X[:, :2])
        assert net[0].weight is weight
        assert [one.training for one in net.modules()] == modes
        assert ft.tree.equal(dict(net.state_dict()), dict(before))
        assert all(one.grad is None for one in net.parameters())

    def test_may_change_its_weights_after_the_program_was_made(self) -> None:
        net = sequence()
        made = ft.program(net, squared, ft.optim.SGD(0.1))
        with torch.no_grad():
            net[0].weight.fill_(7)
        assert_trains_like(made, ft.program(sequence(), squared, ft.optim.SGD(0.1)))
        assert (net[0].weight == 7).all()

    def test_may_be_given_attributes_between_steps(self) -> None:
        class Scaled(nn.Linear):
            def __init__(self) -> None:
                super().__init__(6, 1)
                self.scale, self.table = 1.0, None

            def forward(self, x: Tensor) -> Tensor:
                if self.table is None:
                    self.table = torch.ones(1)
                return self.scale * super().forward(x) * self.table

        net = Scaled()
        made = ft.program(net, squared, ft.optim.SGD(0.0))
        state = stepped(made, 5)
        first = made.train_step(state, X)[1]["loss"]
        net.scale, net.note = 0.0, "mine"
        for _ in range(3):
            assert made.train_step(state, X)[1]["loss"] == 0
        assert first > 0
        assert (net.scale, net.note, net.table) == (0.0, "mine", None)

    def test_is_one_in_two_programs(self) -> None:
        net = sequence()
        one, two = (ft.program(net, squared, ft.optim.SGD(lr)) for lr in (0.1, 0.2))
        start = two.init()

        def loss(model: nn.Module, x: Tensor) -> Tensor:
            two.train_step(start, x)  # binds the module to other tensors meanwhile
            return squared(model, x)

        nested = ft.program(net, loss, ft.optim.SGD(0.1))
        assert_trains_like(nested, one)


def tagged() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Linear(6, 1)
    model.weight.no_decay = True  # type: ignore[assignment]
    return model


def of_parameters(model: nn.Module, x: Tensor) -> Tensor:
    own = [one for one in model._parameters.values() if isinstance(one, nn.Parameter)]
    return model(x).square().mean() + sum(one.square().sum() for one in own)  # type: ignore[no-any-return]


def of_tagged(model: nn.Module, x: Tensor) -> Tensor:
    own = [one for one in model.parameters() if getattr(one, "no_decay", False)]
    return model(x).square().mean() + sum(one.square().sum() for one in own)  # type: ignore[no-any-return]


@pytest.mark.parametrize("loss", [of_parameters, of_tagged])
@pytest.mark.parametrize("trainable", [None, ["bias"]])
def test_parameters_keep_their_class_and_attributes(loss: Any, trainable: Any) -> None:
    program = ft.program(tagged(), loss, ft.optim.SGD(lr=0.1), trainable=trainable)
    state, expected = program.init(), loss(tagged(), X)
    assert torch.equal(program.train_step(state, X)[1]["loss"], expected)
    assert torch.equal(program.eval_step(state, X)["loss"], expected)
    captured = ft.compiled(program, backend="eager")
    torch.testing.assert_close(captured.train_step(state, X)[1]["loss"], expected.detach())
    with program.evaluating(state) as model:
        torch.testing.assert_close(loss(model, X), expected.detach())
    with program.module(state, gradients=True) as model:
        assert {one.requires_grad for one in model.parameters()} == {True, trainable is None}
