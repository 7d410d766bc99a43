"""Unfreezing within a run: equal to a loop by hand, resumable in each phase."""

from __future__ import annotations

from typing import Any

import own_programs as own
import pytest
import torch
from torch import Tensor, nn

import functrain as ft
from functrain import errors, testing, tree

EPOCH = 8
PHASES = [("2 epochs", "2.*"), (None, "*")]


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch)[:, 0] - batch.sum(1)).square().mean()


def made(optimizer: Any = None, **options: Any) -> ft.Program:
    optimizer = ft.optim.AdamW(lr=1e-2) if optimizer is None else optimizer
    return ft.program(own.net(2, 1, 7), loss, optimizer, **options)


def make_run() -> dict[str, Any]:
    program = ft.phases(made(clip_norm=1.0, ema=0.9), [("4 steps", "2.*"), (None, "*")])
    return {"program": program, "data": own.data(), "save_every": "3 steps"}


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_unfreezing_at_epoch_2_is_that_of_a_loop_by_hand(kind: str) -> None:
    ours = {"adamw": ft.optim.AdamW(lr=1e-2), "sgd": ft.optim.SGD(lr=0.05, momentum=0.9)}[kind]
    run = ft.fit(ft.phases(made(ours), PHASES), own.data(), until="4 epochs", progress=False)
    model: Any = own.net(2, 1, 7)
    trunk, head = [*model[0].parameters()], [*model[2].parameters()]
    optimizer: torch.optim.Optimizer
    if kind == "adamw":
        optimizer = torch.optim.AdamW(head, lr=1e-2, fused=True)
    else:
        optimizer = torch.optim.SGD(head, lr=0.05, momentum=0.9, fused=True)
    for parameter in trunk:
        parameter.requires_grad_(False)
    for number, batch in own.batches(4 * EPOCH):
        if number == 2 * EPOCH:
            for parameter in trunk:
                parameter.requires_grad_(True)
            optimizer.add_param_group({"params": trunk})
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    for path, tensor in model.state_dict().items():
        assert tree.equal(run.state.params[path], tensor), path


def test_it_resumes_in_each_phase_and_is_pure() -> None:
    testing.check_resumes(make_run, steps=10, cuts=[2, 4, 7])
    program = make_run()["program"]
    state = program.init()
    for _ in range(6):
        testing.check_pure(program, state, own.X[:8])
        donated, _ = ft.donated(program).train_step(ft.copy(state), own.X[:8])
        checked, _ = ft.checked(program).train_step(state, own.X[:8])
        state, _ = program.train_step(state, own.X[:8])
        assert tree.equal(donated, state)
        assert tree.equal(checked, state)


def test_a_frozen_part_keeps_every_bit() -> None:
    program = ft.phases(made(ema=0.9), [("2 steps", "2.*"), (None, "*")])
    begun = program.init()
    state, _ = program.train_step(begun, own.X[:8])
    for path in ("0.weight", "0.bias"):
        assert tree.equal(state.params[path], begun.params[path])
    assert not tree.equal(state.params["2.weight"], begun.params["2.weight"])


def test_ends_in_epochs_are_refused_where_nobody_counts_them() -> None:
    program = ft.phases(made(), PHASES)
    state = program.init()
    testing.check_pure(program, state, own.X[:8])
    for other in (program, ft.donated(program), ft.checked(program)):
        with pytest.raises(errors.ConfigurationError, match="first one ends after 2 epochs"):
            other.train_step(program.init(), own.X[:8])

    def step(programs: Any, states: Any, batch: Any, rng: Any) -> Any:
        new, metrics = programs["one"].train_step(states["one"], batch)
        return {"one": new}, metrics

    joint: Any = ft.joint({"one": program}, step=step)
    with pytest.raises(errors.ConfigurationError, match="a program of a joint one"):
        ft.fit(joint, own.data(), until="1 epoch", progress=False)
    steps = list(ft.iterate(program, state, own.data(), until="3 epochs"))
    assert tree.equal(steps[15][0].params["0.weight"], state.params["0.weight"])
    assert not tree.equal(steps[16][0].params["0.weight"], state.params["0.weight"])
    assert ft.phases(made(), [(None, "*")]).train_step(state, own.X[:8])[0].counters.step == 1


@pytest.mark.parametrize(
    ("each", "words"),
    [
        ([], "expected pairs"),
        (["2.*"], "expected pairs"),
        ([("2 epochs", "2.*")], "expected None as the end"),
        ([("2 epochs", "3.*"), (None, "*")], "matches none"),
        ([("2 epochs", ["2.*", "4.*"]), (None, "*")], "'4.*' matches none"),
        ([("0.5 epochs", "2.*"), (None, "*")], "whole epochs"),
        ([("3 minutes", "2.*"), (None, "*")], "whole epochs or steps"),
        ([(None, "2.*"), (None, "*")], "whole epochs or steps"),
        ([("2 epochs", "2.*"), ("1 epoch", "0.*"), (None, "*")], "each after the one before"),
        ([("2 epochs", "2.*"), ("100 steps", "0.*"), (None, "*")], "one unit"),
    ],
)
def test_phases_that_do_not_follow_are_refused(each: Any, words: str) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        ft.phases(made(), each)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["compiled", "sharded", "sharpness_aware", "population"])
def test_transformations_that_take_no_phases_say_so(name: str) -> None:
    more = ({"lr": [0.1, 0.2]},) if name == "population" else ()
    with pytest.raises(errors.ConfigurationError, match=r"got one of functrain\.phases"):
        getattr(ft, name)(ft.phases(made(), PHASES), *more)


def test_other_transformations() -> None:
    gradual = ft.phases(made(), PHASES)
    with pytest.raises(errors.ConfigurationError, match="phases: expected an eager program"):
        ft.phases(gradual, PHASES)
    with pytest.raises(errors.FunctrainError, match="eager"):
        ft.differentiable(gradual)
